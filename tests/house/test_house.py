"""The house stands as drawn: the rules of `rules.py` hold in every file, and every rule can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from house.rules import (
    BROAD_EXCEPT_PLACES,
    CORE_MAY_ALSO_IMPORT,
    ENVIRONMENT_PLACES,
    FILE_LINES_MAX,
    FLOORS,
    LONGER_FILES,
    RULES,
    Source,
)

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("client", "service", "scripts", "tests", "examples", "benchmarks")


def sources():
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield Source.of(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", RULES)
def test_the_rule_holds_in_every_file(name):
    """Each failure prints the place, the reason and the cure."""
    complaints = [str(complaint) for source in sources() for complaint in RULES[name](source)]
    assert not complaints, "\n" + "\n".join(complaints)


CORE = "service/gradserve_service/core/optimizers/sgd.py"
MACHINE = "service/gradserve_service/core/machine.py"
STORE = "service/gradserve_service/store/redis_store.py"
REPLICA = "service/gradserve_service/replica.py"
ROUTE = "service/gradserve_service/http/routes/runs.py"
DEMO = "service/gradserve_service/demo/worker.py"
SDK = "client/gradserve/worker.py"
WIRE = "client/gradserve/wire.py"
TEST = "tests/demo/test_demo.py"

BAD = [
    ("floors", CORE, "from gradserve_service.core import machine", "floor 1 imports"),
    (
        "floors",
        CORE,
        "from ..machine import decide",
        "floor 1 imports gradserve_service.core.machine.decide of floor 2",
    ),
    ("floors", MACHINE, "import gradserve_service.store", "imports go down only"),
    ("floors", STORE, "from ..replica import Replica", "imports go down only"),
    ("floors", STORE, "from gradserve_service.core import blocks", "the store keeps bytes in order"),
    ("floors", REPLICA, "from fastapi import Request", "not HTTP"),
    ("floors", ROUTE, "from redis.asyncio import Redis", "no store's own client"),
    ("floors", ROUTE, "from ...cli import main", "of floor 6"),
    ("floors", ROUTE, "import gradserve", "shares gradserve.wire"),
    ("floors", ROUTE, "from gradserve import connect", "shares gradserve.wire"),
    ("floors", ROUTE, "from gradserve.client import Client", "shares gradserve.wire"),
    ("floors", WIRE, "from gradserve.client import Client", "floor 0 imports"),
    ("floors", WIRE, "from .errors import GradserveError", "floor 0 imports"),
    ("floors", "service/gradserve_service/attic.py", "x = 1", "stands on no floor"),
    ("sdk", SDK, "from gradserve_service.limits import Limits", "a worker machine installs"),
    ("sdk", SDK, "import fastapi", "a worker machine installs"),
    ("sdk", SDK, "def late():\n    from redis import Redis", "a worker machine installs"),
    ("one_transport", SDK, "import httpx", "a second module"),
    ("pure_core", CORE, "import time", "core imports time"),
    ("pure_core", CORE, "from datetime import datetime", "core imports datetime"),
    ("pure_core", CORE, "import asyncio", "core imports asyncio"),
    ("pure_core", CORE, "from redis import Redis", "core imports redis"),
    ("pure_core", CORE, "import os", "core imports os"),
    ("pure_core", CORE, "from random import random", "core imports random"),
    ("pure_core", CORE, "from numpy.random import default_rng", "core imports numpy.random"),
    ("pure_core", CORE, "import numpy as np\nx = np.random.default_rng(0)", "throws a coin"),
    ("pure_core", CORE, "x = open('weights')", "no I/O"),
    ("no_unpickling", DEMO, "import pickle", "runs whatever they say"),
    ("no_unpickling", TEST, "from joblib import load", "runs whatever they say"),
    ("no_unpickling", SDK, "x = eval('1')", "text becomes code"),
    ("no_unpickling", SDK, "exec('x = 1')", "text becomes code"),
    ("no_unpickling", SDK, "import numpy as np\nx = np.load('x', allow_pickle=True)", "allows pickle"),
    ("environment_in_one_place", ROUTE, "import os\nx = os.environ['HOME']", "reads the environment"),
    ("environment_in_one_place", SDK, "import os\nx = os.getenv('HOME')", "reads the environment"),
    ("environment_in_one_place", SDK, "from os import environ", "reads the environment"),
    ("narrow_excepts", DEMO, "try:\n    x = 1\nexcept Exception:\n    pass", "catches everything"),
    ("narrow_excepts", DEMO, "try:\n    x = 1\nexcept (OSError, Exception):\n    pass", "catches everything"),
    ("narrow_excepts", DEMO, "try:\n    x = 1\nexcept BaseException:\n    if x:\n        raise", "catches everything"),
    ("narrow_excepts", DEMO, "try:\n    x = 1\nexcept:\n    pass", "catches everything"),
    ("documented", DEMO, "x = 1", "the module has no docstring"),
    ("documented", DEMO, '"""A."""\ndef train(): ...', "train is public"),
    ("documented", DEMO, '"""A."""\nasync def train(): ...', "train is public"),
    ("documented", DEMO, '"""A."""\nclass Net: ...', "Net is public"),
    (
        "documented",
        DEMO,
        '"""A."""\nclass Net:\n    """B."""\n    def f(self):\n        self.a = 1\n' + "        self.b = 2\n" * 3,
        "Net.f has no docstring",
    ),
    ("one_subject", DEMO, "x = 1\n" * (FILE_LINES_MAX + 1), "it has a second subject"),
    ("telling_names", "client/gradserve/utils.py", "", "gathers whatever has no place"),
    ("telling_names", "tests/demo/helpers.py", "", "gathers whatever has no place"),
    ("telling_names", SDK, "class RunManager: ...", "does not say what it is"),
    ("no_skips", TEST, "import pytest\npytestmark = pytest.mark.skipif(True, reason='no redis')", "uses skipif"),
    ("no_skips", TEST, "import pytest\npytest.skip('later')", "uses skip"),
]


@pytest.mark.parametrize(("name", "path", "text", "words"), BAD)
def test_the_rule_can_fail(name, path, text, words):
    """A file that breaks it draws exactly this complaint, with a place and a cure."""
    complaints = [str(complaint) for complaint in RULES[name](Source.of(path, text))]
    assert complaints
    assert any(words in complaint for complaint in complaints), complaints
    assert all(complaint.startswith(path + ":") and "Cure: " in complaint for complaint in complaints)


GOOD = [
    ("floors", MACHINE, "from .optimizers import sgd\nfrom gradserve.problems import Rejection"),
    ("floors", ROUTE, "from gradserve import specs, wire\nfrom ...replica import Replica"),
    ("floors", ROUTE, "from ..bodies import read\nfrom . import workers"),
    ("floors", DEMO, "import gradserve as gs\nfrom gradserve_service.core.update import apply_update"),
    ("floors", WIRE, "from .problems import Refused"),
    ("sdk", SDK, "import json, numpy, httpx\nfrom .wire import Layout"),
    (
        "pure_core",
        CORE,
        "import math\nimport numpy as np\nfrom gradserve.specs import Sgd\nfrom ..blocks import in_turn",
    ),
    ("no_unpickling", SDK, "import re\nx = re.compile('a')"),
    ("environment_in_one_place", next(iter(ENVIRONMENT_PLACES)), "import os\nx = os.environ"),
    ("narrow_excepts", DEMO, "try:\n    x = 1\nexcept (OSError, ValueError):\n    pass"),
    ("narrow_excepts", DEMO, "try:\n    x = 1\nexcept BaseException:\n    x = 2\n    raise"),
    ("documented", DEMO, '"""A."""\ndef _private(): ...'),
    ("no_skips", DEMO, "rows.skip(3)"),
]


@pytest.mark.parametrize(("name", "path", "text"), GOOD)
def test_the_rule_lets_good_code_be(name, path, text):
    assert [str(complaint) for complaint in RULES[name](Source.of(path, text))] == []


def test_every_rule_is_proven_able_to_fail():
    assert {name for name, *_ in BAD} == set(RULES)


def test_every_listed_place_exists():
    """An exception for a file that is gone would wait for another file of that name."""
    places = [*ENVIRONMENT_PLACES, *BROAD_EXCEPT_PLACES, *LONGER_FILES, *(path for path, _ in CORE_MAY_ALSO_IMPORT)]
    assert [place for place in places if not (ROOT / place).is_file()] == []
    modules = {source.module for source in sources()}
    assert [module for module in FLOORS if module not in modules] == []


def test_the_sdk_imports_with_the_base_dependencies_alone():
    """With every package of the extras hidden, as on a worker machine, `import gradserve` works."""
    program = """
import sys

class Hidden:
    names = {"fastapi", "starlette", "uvicorn", "redis", "structlog", "typer", "rich", "ml_dtypes", "uvloop",
             "prometheus_client", "pydantic_settings", "sklearn", "matplotlib", "torch", "gradserve_service"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ImportError(f"{name} is not among the base dependencies")

sys.meta_path.insert(0, Hidden())
import gradserve
import gradserve.losses
assert gradserve.connect
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
