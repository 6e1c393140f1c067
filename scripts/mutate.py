#!/usr/bin/env python3
"""Would a mistake in an optimizer be noticed? Makes small ones, one at a time, and says which are not.

    python scripts/mutate.py                     # every function of core/optimizers; minutes on one core
    python scripts/mutate.py adam rule           # of these files
    python scripts/mutate.py --sample 150        # some by chance; the seed is printed
    python scripts/mutate.py --sample 150 --seed 7

A mistake is one changed constant, sign, operator, comparison, order of operands, β1 for β2, t off by one, or a line
left out (`scripts/mutants.py`). Each is made in a process of its own, forked after all imports, and judged in turn by

    twin      the walks of the dumb twins of every optimizer that the function serves (tests/core/walks.py)
    library   the golden vectors of torch, Keras and optax
    bits      the frozen digests of our own bits, and the golden updates of a server's start
    laws      the rates that are told and the slots that are never negative, on the same walks; test_rule_edges.py
    tests     the other tests of the arithmetic, by pytest; seconds each, so only for what is left by then

What is caught by the bits alone was noticed to be another, not to be wrong. A mistake that changes nothing is no
mistake: those are in `EQUIVALENT`, each with its reason. Exits with 1 when any other survives, or one of that table is
caught or gone. Needs gradserve[dev].
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import pkgutil
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import numpy as np  # noqa: E402 – after the path
from equivalent_mutants import EQUIVALENT  # noqa: E402
from mutants import Mutant, mutants_of  # noqa: E402

from core import test_rule_edges, walks  # noqa: E402
from core.running import golden_run, state_digest  # noqa: E402
from gradserve_service.core import numerics, optimizers  # noqa: E402
from gradserve_service.core.optimizers import RULES  # noqa: E402

GOLDEN = ROOT / "tests" / "core" / "golden"
GIVEN = json.loads((GOLDEN / "inputs.json").read_text())
PASSED_OVER = ("catalogue",)  # words for people
SECONDS_MAX = 20  # of the processor: a mistake can make a loop endless, and is caught then
TESTS = (
    "test_laws", "test_optimizers", "test_seed_vectors", "test_directions", "test_tensor_sweeps", "test_update",
    "test_rows", "test_whole_run", "test_schedule_free", "test_preconditioned",
)  # fmt: skip
TESTS_SECONDS_MAX = 120


def judged_by_twin(names: Sequence[str]) -> bool:
    """Do all walks end where the dumb twins ended?"""
    return all(walk.holds() for name in names for walk in walks.walks(name))


def judged_by_library(names: Sequence[str]) -> bool:
    """Do the golden cases end where torch, Keras and optax ended?"""
    for case in _cases("torch", names) + _cases("others", names):
        expected, bound = case["weights_after"].get("float64", case["weights_after"]), case.get("bound", 1e-11)
        last = np.array(GIVEN["weights"])
        path = np.zeros_like(last)
        for run in golden_run(case, GIVEN, "float64"):
            path, last = path + np.abs(run.weights - last), run.weights
            theirs = expected.get(str(run.updates))
            if theirs and not np.all(np.abs(last - theirs) <= bound * path + np.spacing(np.abs(last))):
                return False
    return True


def judged_by_bits(names: Sequence[str]) -> bool:
    """Are the frozen digests what they were?"""
    golden = numerics.GOLDEN
    cases = _cases("bits", names)
    frozen = all(state_digest(case, GIVEN) == case["state_sha256"] for case in cases)
    # Bits of one machine's kind are frozen nowhere.
    return frozen and all(numerics.golden_digest(name) == golden[name] for name in names if name in golden)


def judged_by_laws(names: Sequence[str]) -> bool:
    """Do the laws hold on all walks, and what is asked at the edges?"""
    for name, test in vars(test_rule_edges).items():
        if name.startswith("test_"):
            test()
    return all(
        walks.never_negative_holds(name) and all(walk.rates_hold() for walk in walks.walks(name)) for name in names
    )


def judged_by_tests(names: Sequence[str]) -> bool:
    """Do the tests of the arithmetic pass?"""
    import pytest

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.setitimer(signal.ITIMER_VIRTUAL, TESTS_SECONDS_MAX)
    files = [str(ROOT / "tests" / "core" / f"{name}.py") for name in TESTS]
    quiet = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", f"--rootdir={ROOT}"]
    return pytest.main([*quiet, "-c", str(ROOT / "pyproject.toml"), *files]) == pytest.ExitCode.OK


JUDGES: dict[str, Callable[[Sequence[str]], bool]] = {
    "twin": judged_by_twin, "library": judged_by_library, "bits": judged_by_bits, "laws": judged_by_laws,
    "tests": judged_by_tests,
}  # fmt: skip


QUICK = ("twin", "library", "bits", "laws")


@cache
def _all_cases(folder: str) -> list[dict[str, Any]]:
    files = [json.loads(path.read_text()) for path in sorted((GOLDEN / folder).glob("*.json"))]
    return [case for file in files for case in (file if folder == "bits" else file["cases"])]


def _cases(folder: str, names: Sequence[str]) -> list[dict[str, Any]]:
    return [case for case in _all_cases(folder) if _canonical(case["optimizer"]["name"]) in names]


@cache
def _canonical(name: str) -> str:
    from gradserve.specs import OPTIMIZERS

    return OPTIMIZERS.name_of(name)[0]


def all_mutants(files: Iterable[str]) -> list[Mutant]:
    """Of these modules of core/optimizers, or of all."""
    there = [module.name for module in pkgutil.iter_modules(optimizers.__path__)]
    wanted = list(files) or [name for name in there if name not in PASSED_OVER]
    if unknown := set(wanted) - set(there):
        raise SystemExit(f"expected files of core/optimizers ({', '.join(there)}), came {', '.join(sorted(unknown))}")
    modules = [importlib.import_module(f"{optimizers.__name__}.{name}") for name in wanted]
    return [mutant for module in modules for mutant in mutants_of(module)]


def served_by(mutant: Mutant) -> list[str]:
    """The optimizers whose arithmetic the mutant's function is part of."""
    owner, function = mutant.owner, mutant.function
    if owner is not None:
        return [name for name, rule in RULES.items() if issubclass(rule, owner)]
    beside = [x for x in _functions(vars(sys.modules[function.__module__])) if x.__module__ == function.__module__]
    # A helper that no rule's module has by name is called by one beside it.
    return _having([function]) or _having(beside)


def _having(functions: Sequence[Any]) -> list[str]:
    """The optimizers in whose modules one of these functions is."""
    modules = {name: {base.__module__ for base in rule.__mro__} for name, rule in RULES.items()}
    return [
        name
        for name, its in modules.items()
        if any(function in _functions(vars(sys.modules[module])) for module in its for function in functions)
    ]


def _functions(names: dict[str, Any]) -> list[Any]:
    """Those of a module, its own and imported ones, without what remembers their results."""
    unwrapped = [inspect.unwrap(value) for value in names.values() if callable(value)]
    return [value for value in unwrapped if hasattr(value, "__code__")]


def verdict(mutant: Mutant, judges: Iterable[str]) -> str | None:
    """Who catches it: the first of the judges, None if none does. In a child; this process stays as it is."""
    names, order = served_by(mutant), list(judges)
    child = os.fork()
    if child == 0:
        os._exit(_in_child(mutant, names, order))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return (None if code == len(order) else order[code]) if code >= 0 else "time"


def _in_child(mutant: Mutant, names: Sequence[str], order: Sequence[str]) -> int:
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_MAX)
    place = 0
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # NumPy warns of what some mistakes make
    try:
        mutant.apply()
        _forget()
        for place, judge in enumerate(order):
            if not JUDGES[judge](names):
                return place
    except Exception:  # noqa: BLE001 – whatever a mistake raises is what a test would fail with
        return place
    return len(order)


def _forget() -> None:
    """What was computed before the mistake and kept: layouts of slots, rules of specs."""
    for name, module in list(sys.modules.items()):
        if name.startswith("gradserve_service.core"):
            for value in vars(module).values():
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()


def sound(names: Sequence[str], judges: Sequence[str]) -> None:
    """Nothing may be caught before there is a mistake. Also computes, before any fork, what all children share."""
    for judge in judges:
        if not JUDGES[judge](names):
            raise SystemExit(f"without any mutant, {judge} does not hold: run the tests first")


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the mutants; print those that survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="modules of core/optimizers; all without any")
    parser.add_argument("--sample", type=int, help="judge this many, by chance")
    parser.add_argument("--seed", type=int, help="of the sample")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests by pytest out")
    options = parser.parse_args(arguments)
    began, found = time.monotonic(), all_mutants(options.files)
    keys = {mutant.key for mutant in found}
    if options.sample is not None:
        seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
        print(f"{options.sample} of {len(found)} mutants, seed {seed}")
        found = random.Random(seed).sample(found, min(options.sample, len(found)))
    sound(
        sorted({name for mutant in found for name in served_by(mutant)}), QUICK if options.sample is None else QUICK[:1]
    )
    caught, complaints = judge_all(found, not options.no_tests)
    if not options.files:
        complaints += [f"no mutant any more, take it out of the table: {key}" for key in EQUIVALENT if key not in keys]
    by = ", ".join(f"{count} {judge}" for judge, count in caught.items())
    print(*complaints, f"{len(found)} mutants: {by} ({time.monotonic() - began:.0f} s)", sep="\n")
    return 1 if complaints else 0


def judge_all(found: Sequence[Mutant], by_tests: bool) -> tuple[Counter[str], list[str]]:
    """How many each judge caught, and a sentence on each mutant that is not as it should be."""
    caught: Counter[str] = Counter()
    complaints = []
    for mutant in found:
        judge = verdict(mutant, QUICK)
        known = mutant.key in EQUIVALENT
        if judge is None and not known and by_tests:
            judge = verdict(mutant, ("tests",))
        if known != (judge is None):
            where = f"{_short(mutant.path)}:{mutant.line} {mutant.place}: {mutant.change}"
            complaints.append(f"survives {where}" if judge is None else f"not equivalent, caught by {judge}: {where}")
            print(complaints[-1], file=sys.stderr, flush=True)
        caught[f"by {judge}" if judge else "equivalent" if known else "by nobody"] += 1
    return caught, complaints


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    sys.exit(main())
