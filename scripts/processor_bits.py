#!/usr/bin/env python3
"""The bits of every optimizer on lesser processors: NumPy's vector instructions switched off, level by level.

    python scripts/processor_bits.py            # all levels of this processor, and a table of what differs
    python scripts/processor_bits.py --digests  # the digests of this process alone, as JSON

Each level is a process of its own with NPY_DISABLE_CPU_FEATURES, as NumPy reads it only once:

    baseline    nothing but what this NumPy was built for at the least (SSE4.2 on x86-64)
    half        without the widest registers (AVX-512 or SVE)
    all         whatever this processor has

It computes the golden updates of a server's start, the frozen cases of tests/core/golden/bits, and a few updates of
every form of every rule over tensors that are no multiple of a register. All digests of weights and slots have to be
those of the level `all`, and the frozen ones what is frozen; rules that promise it of one machine type only
(`every_machine = False`: matrix products) are named where they differ, and fail nothing. Needs gradserve[dev].
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "core" / "golden"
SHAPES = {"kernel": [37, 29], "long": [1003], "cube": [3, 4, 6], "scale": []}
UPDATES = 4
LONGEST_AXIS = 40
WIDEST = ("AVX512", "X86_V4", "SVE")

Digests = dict[str, dict[str, str]]  # case → optimizer, digest, and what is frozen of it


def levels() -> dict[str, list[str]]:
    """What to switch off at each level: features that NumPy looks for at run time and finds here."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__  # type: ignore[attr-defined]

    here = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    widest = [name for name in here if any(word in name for word in WIDEST)]
    return {"baseline": here, "half": widest, "all": []}


def digests() -> Digests:
    """Of all cases, in this process."""
    from gradserve_service.core import numerics
    from gradserve_service.core.optimizers import RULES

    found = {
        f"golden {name}": {
            "optimizer": name,
            "digest": numerics.golden_digest(name),
            "frozen": numerics.GOLDEN.get(name, ""),
        }
        for name in RULES
    }
    return {**found, **_frozen_cases(), **dict(_forms())}


def _frozen_cases() -> Digests:
    from core.running import state_digest
    from gradserve.specs import OPTIMIZERS

    given = json.loads((GOLDEN / "inputs.json").read_text())
    found: Digests = {}
    for path in sorted((GOLDEN / "bits").glob("*.json")):
        for place, case in enumerate(json.loads(path.read_text())):
            name = OPTIMIZERS.name_of(case["optimizer"]["name"])[0]
            digest = state_digest(case, given)
            found[f"{path.stem} {place}"] = {"optimizer": name, "digest": digest, "frozen": case["state_sha256"]}
    return found


def _forms() -> Iterator[tuple[str, dict[str, str]]]:
    """Every form that brings slots, every preset, and every arithmetic path that the tests name."""
    from core import strategies, tensor_strategies
    from gradserve.specs import OPTIMIZERS
    from gradserve_service.core.optimizers import RULES

    specs = [*strategies.EACH, *tensor_strategies.EACH]
    for name, declared in OPTIMIZERS.built.items():
        for fields in ({}, *RULES[name].forms, *({"compat": preset} for preset in declared.presets)):
            specs.append(declared.model_validate({**fields, "lr": 0.05}))
    for place, spec in enumerate(specs):
        yield f"form {place} {spec.name}", {"optimizer": spec.name, "digest": _after_some_updates(spec), "frozen": ""}


def _after_some_updates(spec: Any) -> str:
    import numpy as np
    from xxhash import xxh3_64_hexdigest

    from core.running import Updates
    from gradserve import specs
    from gradserve.wire import Layout

    layout = Layout.of(SHAPES)
    if "max_preconditioner_dim" in type(spec).model_fields:  # else a matrix of a million elements is decomposed
        spec = spec.model_copy(update={"max_preconditioner_dim": LONGEST_AXIS})
    # Quotients of small integers, and powers of two for the magnitudes: the same at every level without a coin.
    places = np.arange(layout.parameters, dtype=np.float32)
    run = Updates(spec, np.remainder(places * 7, np.float32(23)) / np.float32(11) - 1, _clip(specs), layout=layout)
    for t in range(1, UPDATES + 1):
        size = np.ldexp(np.float32(1), (np.arange(places.size) * 5 + t) % 9 - 6)
        g = (np.remainder(places * 37 + t * 11, np.float32(29)) / np.float32(13) - 1) * size
        run.step(g, spec.lr / t, block_elements=500)
    return xxh3_64_hexdigest(run.state)


def _clip(specs: Any) -> Sequence[Any]:
    return [specs.Value(value=1.5), specs.GlobalNorm(max_norm=9.0)]


def of_level(switched_off: Sequence[str]) -> subprocess.Popen[str]:
    """A process that prints its digests."""
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": ",".join(switched_off), "PYTHONPATH": _path()}
    words = [sys.executable, str(Path(__file__).resolve()), "--digests"]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)


def _path() -> str:
    return os.pathsep.join(entry for entry in sys.path if entry)


def compared(by_level: Mapping[str, Digests]) -> tuple[list[str], list[str]]:
    """What must not differ and does, and what may and does: a sentence each."""
    from gradserve_service.core.optimizers import RULES

    wrong, allowed = [], []
    for level, found in by_level.items():
        for case, row in found.items():
            expected = row["frozen"] or by_level["all"][case]["digest"]
            if row["digest"] != expected:
                what = f"{row['optimizer']} ({case}) ends in other bits at level {level}"
                (wrong if RULES[row["optimizer"]].every_machine else allowed).append(what)
    return wrong, allowed


def main() -> int:
    """Compare all levels; 1 if a rule that promises the same bits has others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digests", action="store_true")
    if parser.parse_args().digests:
        print(json.dumps(digests()))
        return 0
    off = levels()
    children = {level: of_level(features) for level, features in off.items()}
    outputs = {level: child.communicate()[0] for level, child in children.items()}
    if failed := [level for level, child in children.items() if child.returncode]:
        print(f"no digests at level {', '.join(failed)}")
        return 1
    wrong, allowed = compared({level: json.loads(output) for level, output in outputs.items()})
    for level, features in off.items():
        print(f"{level:9} without {', '.join(features) or 'nothing'}")
    cases = len(json.loads(outputs["all"]))
    print(*(f"differs, as declared: {what}" for what in allowed), *(f"WRONG: {what}" for what in wrong), sep="\n")
    print(f"{cases} cases at {len(off)} levels: {len(wrong)} differ that must not, {len(allowed)} that may")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    sys.exit(main())
