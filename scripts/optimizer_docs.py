#!/usr/bin/env python3
"""Write docs/optimizers.md, the catalogue as a page, from the declarations and the rules.

    python scripts/optimizer_docs.py            # write the page
    python scripts/optimizer_docs.py --check    # only compare it with the code
    python scripts/optimizer_docs.py --lines    # lines of arithmetic of each optimizer, and their median

A test holds the page equal to what this writes. Needs gradserve[service].
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from gradserve.specs import AGGREGATIONS, AVERAGES, CLIPS, SCHEDULES, STALENESS, Family
from gradserve_service.core.optimizers import RULES, Rule
from gradserve_service.core.optimizers.catalogue import optimizer_catalogue

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "optimizers.md"

HEAD = """# Optimizers, schedules, clips

Written by `scripts/optimizer_docs.py` from the declarations that the server reads; `GET /v1/optimizers`,
`/v1/schedules`, `/v1/clips`, `/v1/averages`, `/v1/aggregations` and `/v1/staleness` answer the same as JSON. How far
each is from torch, Keras and optax: [parity.md](parity.md). How they do on one problem: [comparison.md](comparison.md).

In the formulas: `w` weights, `g` gradient (clipped, with its sign turned under `maximize`), `lr` the rate of this
update, `t` the number of the update from 1, `k` = t - 1. Names and fields are read in any case, with `-`, `_` or
neither. `compat` takes the defaults of another library; without it they are those of the column *default*.

*Bytes* are of the weight and its optimizer state, a parameter of a large matrix; a gradient on its way is not counted.
*Bits* says what is promised of repeating a run: `exact` ones are the same for any number of threads and any server.
"""

NOT_THERE = {
    "`lbfgs` (optax', without line search)": "its curvature pairs are noise on mini-batches, and it keeps twenty "
    "vectors; `shampoo` and `soap` use curvature of mini-batches",
    "`mechanic`": "learns the scale of another rule's steps, one more state around it; `prodigy`, `dadapt_adam` and "
    "`dog` find their rate by themselves",
    "torch's LBFGS, optax' with line search": "ask for the loss at trial weights in the middle of an update; a push "
    "has one",
    "sophia, AdaHessian": "need an estimate of the Hessian's diagonal beside the gradient",
    "SAM and its kin": "need gradients at weights that are moved on purpose",
    "dpsgd": "needs the gradient of every sample: clip at the worker, and take the stage `noise`",
    "MARS, SVRG": "need the gradient of one batch at two versions of the weights",
    "galore": "a projection around another rule: it saves nothing where the whole gradient travels",
}

CASE = """## {name}

{summary}

    {formula}

{facts}

| field | default | allowed | meaning | also read as |
|---|---|---|---|---|
{fields}
"""


def page() -> str:
    """The whole of it."""
    entries = optimizer_catalogue()
    parts = [HEAD, _overview(entries), *map(_optimizer, entries)]
    for title, family in (
        ("Schedules", SCHEDULES), ("Clips", CLIPS), ("Averages of the weights", AVERAGES), ("Staleness", STALENESS),
        ("Aggregation", AGGREGATIONS),
    ):  # fmt: skip
        parts.append(_short(title, family))
    missing = [f"| {name} | {why} |" for name, why in NOT_THERE.items()]
    parts.append("\n".join(["## What is not there, and why", "", "| asked for | why not |", "|---|---|", *missing, ""]))
    return "\n".join(parts)


def _overview(entries: list[dict[str, Any]]) -> str:
    rows = [
        f"| [`{e['name']}`](#{e['name']}) | {e['summary']} | {e['bytes_per_parameter']} | {_bits(e)} |" for e in entries
    ]
    return "\n".join(["| optimizer | | bytes | bits |", "|---|---|---|---|", *rows, ""])


def _bits(entry: Mapping[str, Any]) -> str:
    return str(entry["determinism"]).partition(":")[0]


def _optimizer(entry: dict[str, Any]) -> str:
    facts = [
        f"*{_word(entry['use_when'])}*",
        f"Keeps: {'; '.join(_kept(entry)) or 'nothing'}. {entry['bytes_per_parameter']} bytes a parameter.",
        f"Bits: {entry['determinism']}.",
        *([f"Also: {_aliases(entry)}."] if entry["aliases"] else []),
        f"Presets: {_presets(entry)}.",
        f"Source: {entry['source']}",
    ]
    lines = [textwrap.fill(fact, 120, break_long_words=False, break_on_hyphens=False) for fact in facts]
    schema = entry["hyperparameters"]
    return CASE.format(
        name=entry["name"],
        summary=entry["summary"],
        formula="\n    ".join(_formula_lines(entry["formula"])),
        facts="\n\n".join(lines),
        fields="\n".join(_field_rows(schema)),
    )


def _formula_lines(formula: str) -> Iterator[str]:
    """One assignment a line."""
    for sentence in formula.split(". "):
        yield from (line.strip() for line in sentence.rstrip(".").split("; "))


def _word(text: str) -> str:
    return text.rstrip(".") + "."


def _kept(entry: Mapping[str, Any]) -> Iterator[str]:
    for slot in entry["slots"]:
        beside = f" (with `{slot['with']}`)" if slot["with"] else ""
        begins = f", starts at {slot['initial']:g}" if slot["initial"] else ""
        yield f"`{slot['name']}`{beside}, {slot['meaning']}{begins}"
    if entry["numbers"]:
        yield f"one number a run each: {_code(entry['numbers'])}"


def _code(words: Any) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _aliases(entry: Mapping[str, Any]) -> str:
    return ", ".join(
        f"`{alias}`" + (f" ({_settings(said['fields'])})" if said["fields"] else "")
        for alias, said in entry["aliases"].items()
    )


def _settings(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in fields.items())


def _presets(entry: Mapping[str, Any]) -> str:
    """What each preset has that the defaults have not."""
    properties = entry["hyperparameters"]["properties"]
    defaults = {name: field.get("default") for name, field in properties.items()}
    said = []
    for preset, fields in entry["presets"].items():
        other = {name: value for name, value in fields.items() if value != defaults.get(name)}
        said.append(f"`{preset}` ({_settings(other) if other else 'the defaults'})")
    return ", ".join(said)


def _field_rows(schema: Mapping[str, Any]) -> Iterator[str]:
    for name, field in schema["properties"].items():
        default = "required" if name in schema.get("required", ()) else f"`{_value(field.get('default'))}`"
        meaning = _cell(field.get("description", ""))
        yield f"| `{name}` | {default} | {_allowed(field)} | {meaning} | {_code(field.get('aliases', ()))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _value(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _allowed(field: Mapping[str, Any]) -> str:
    """The values that a JSON schema lets through, in words."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_allowed(one) for one in field["anyOf"]))
    if "enum" in field or "const" in field:
        return _code(map(_value, field.get("enum", [field.get("const")])))
    bounds = [
        f"{sign} {_value(field[word])}"
        for word, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if word in field and field[word] != 2**53 - 1
    ]
    kinds = {"number": "number", "integer": "whole number", "boolean": "true, false", "null": "null", "array": "list"}
    kind = kinds.get(field.get("type", ""), "text" if field.get("type") else "see meaning")
    return " ".join([kind, ", ".join(bounds)]).rstrip()


def _short(title: str, family: Family) -> str:
    """A family's members in a table."""
    rows = [f"## {title}", "", "| name | | formula | fields | use it for | source |", "|---|---|---|---|---|---|"]
    for name, declared in family.built.items():
        entry = declared.catalogue_entry()
        schema = entry["hyperparameters"]
        fields = [
            f"`{field}`" + ("" if field in schema.get("required", ()) else f" = {_value(said.get('default'))}")
            for field, said in schema["properties"].items()
        ]
        spelled = sorted(alias for alias, (meant, _) in family.aliases.items() if meant == name)
        formula = entry["formula"].replace("`", "")
        cells = [entry["summary"], f"`{formula}`", ", ".join(fields), entry["use_when"], entry["source"]]
        also = f" (also {_code(spelled)})" if spelled else ""
        rows.append(" | ".join([f"| `{name}`{also}", *map(_cell, cells)]) + " |")
    return "\n".join([*rows, ""])


# ------------------------------------------------------------------------------------------------- lines of arithmetic


def lines_of(rule: type[Rule]) -> int:
    """Lines of arithmetic: the bodies of the rule's own methods and of those it shares with its family.

    Not counted: docstrings, blank lines, signatures, declarations of slots, and what is in `rule.py` and `kinds.py`.
    A statement counts as one line however it is broken.
    """
    counted = 0
    for base in rule.__mro__:
        if not base.__module__.startswith(f"{Rule.__module__.rpartition('.')[0]}.") or base.__module__ in SHARED:
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        methods = [node for node in getattr(tree, "body", ()) if isinstance(node, ast.FunctionDef)]
        counted += sum(_statements(method) for method in methods if method.name not in DECLARATIONS)
    return counted


SHARED = (Rule.__module__, Rule.__module__.replace(".rule", ".kinds"))
DECLARATIONS = ("slots", "memory", "element_rates")


def _statements(method: ast.FunctionDef) -> int:
    inner = [node for statement in method.body for node in ast.walk(statement) if isinstance(node, ast.stmt)]
    return len(inner) - (ast.get_docstring(method) is not None)


def print_lines() -> None:
    """Each optimizer with its lines, and the median."""
    counted = {name: lines_of(rule) for name, rule in RULES.items()}
    for name, lines in sorted(counted.items(), key=lambda row: (row[1], row[0])):
        print(f"{lines:4} {name}")
    print(f"median {median(counted.values()):g} lines of arithmetic, {len(counted)} optimizers")


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--lines", action="store_true")
    options = parser.parse_args()
    if options.lines:
        print_lines()
        return 0
    if options.check:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
        print("docs/optimizers.md is what the code says" if same else "differs: python scripts/optimizer_docs.py")
        return 0 if same else 1
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
