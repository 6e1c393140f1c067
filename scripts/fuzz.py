#!/usr/bin/env python3
"""Ask a real server for everything that its OpenAPI document allows, and for much that it does not.

    python scripts/fuzz.py --cases 5000 [--seed N] [--operation push_gradient]

Starts `gradserve serve` on an embedded store in a temporary folder and sends it requests that schemathesis makes from
`/openapi.json`: single ones, valid and not, and chains of requests along the document's links. Prints the answers by
operation and status, and ends with 1 if one of them was none of ours:

* a status of 500 and above, or `quarantined` (an exception that nobody foresaw), or no answer at all;
* an error without a problem document of a code in the table, or with another status than the table's;
* a success whose status, type, headers or body the document does not describe.

A failure is shown with a curl command and the seed that makes it again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import signal
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyStrategyDefinition
from schemathesis.core import NOT_SET
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gradserve.problems import PROBLEMS
from gradserve.wire import MEDIA_TYPE

FRAMES = Path(__file__).resolve().parent.parent / "openapi" / "frames"
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
PROBLEM_TYPE = "application/problem+json"
STREAM_TYPE = "text/event-stream"  # has no end: only its head is read
ANSWER_SECONDS_MAX = 100  # a long-poll ends after 60
FAILURES_SHOWN = 20
RUNS = ("run", "sgd", "adam")
# What makes a request get past the first check: names that exist, and bodies that are accepted.
KNOWN = {"run": RUNS, "worker": ("w", "v"), "checkpoint": ("c", "d"), "name": ("c", "d"), "code": ("fenced",)}
GOOD_BODIES: dict[str, tuple[Any, ...]] = {
    "create_run": (
        {"optimizer": "sgd", "weights": {"w": [1.0, 2.0]}},
        {"optimizer": {"name": "adam", "lr": 0.01}, "clip": ["global_norm"], "staleness": "inverse"},
        {"optimizer": "sgd", "schedule": "client"},
        {"optimizer": "sgd", "branch": {"run": "run", "checkpoint": "c"}},
    ),
    "change_run": ({"optimizer": {"lr": 0.5}}, {"state": "paused"}, {"state": "running"}),
    "load_weights": ({"weights": {"w": [0.5, -0.5]}}, {"weights": {"w": [3.0, 4.0], "b": 0.0}}),
    "push_gradient": ({"gradients": {"w": [1.0, -1.0]}}, {"gradients": {"w": [1e30, 0.0]}, "loss": 0.5}),
    "register_worker": ({"instance": "one"}, {"instance": "two", "metadata": {"host": "here"}}),
    "preview_schedule": ({"schedule": "constant", "steps": 10},),
    "save_checkpoint": (NOT_SET,),  # no body: of the present state
    "restore_run": ({"checkpoint": "c"}, {"version": 0}),
    "report_metrics": ({"values": {"loss": 0.5}},),
}


class Fuzz:
    """What was asked, what came, and what should not have come."""

    def __init__(self, url: str, cases: int, chosen: int) -> None:
        self.url = url
        self.cases = cases
        self.dice = random.Random(chosen)
        self.asked = 0
        self.in_chain = False
        self.answers: Counter[tuple[str, str]] = Counter()
        self.failures: dict[tuple[str, str], str] = {}
        self.session = requests.Session()
        self.session.trust_env = False

    @property
    def done(self) -> bool:
        return self.asked >= self.cases

    def call(self, case: schemathesis.Case) -> Any:
        """Send the request, judge the answer; None when there was none that can be looked at."""
        self.asked += 1
        operation = case.operation.definition.raw["operationId"]
        self.mend(operation, case)
        try:
            if streams(case):
                self.count(operation, self.head_of(case))
                return None
            response = case.call(base_url=self.url, session=self.session, timeout=ANSWER_SECONDS_MAX)
        except requests.RequestException as error:
            self.count(operation, "none")
            self.fail(operation, f"no answer: {type(error).__name__}", case, str(error))
            return None
        self.count(operation, str(response.status_code))
        for complaint in complaints(case, response):
            self.fail(operation, complaint, case, response.content[:600].decode(errors="replace"))
        return response

    def mend(self, operation: str, case: schemathesis.Case) -> None:
        """Half of the requests get a good body, and most of the single ones names that exist."""
        if operation in GOOD_BODIES and self.dice.random() < 0.5:
            case.body, case.media_type = self.dice.choice(GOOD_BODIES[operation]), "application/json"
        parameters = case.path_parameters or {}
        if not self.in_chain and self.dice.random() < 0.8:
            for name in set(KNOWN) & set(parameters):
                parameters[name] = self.dice.choice(KNOWN[name])
            if "sequence" in parameters:
                parameters["sequence"] = self.dice.randint(1, 3)

    def head_of(self, case: schemathesis.Case) -> str:
        """The status of an answer without an end; its complaints are those of its head."""
        asked = case.as_transport_kwargs(base_url=self.url)
        with self.session.request(**{**asked, "stream": True, "timeout": ANSWER_SECONDS_MAX}) as answer:
            kind = answer.headers.get("content-type", "").partition(";")[0]
            if kind != (PROBLEM_TYPE if answer.status_code >= 400 else STREAM_TYPE):
                self.fail(case.operation.definition.raw["operationId"], f"{answer.status_code} is {kind}", case, "")
            return str(answer.status_code)

    def count(self, operation: str, status: str) -> None:
        self.answers[operation, status] += 1

    def fail(self, operation: str, complaint: str, case: schemathesis.Case, came: str) -> None:
        key = (operation, complaint.splitlines()[0][:160])
        if key not in self.failures:
            self.failures[key] = f"{complaint}\n{case.as_curl_command()[:2000]}\n{came}"


def streams(case: schemathesis.Case) -> bool:
    """Does the operation answer with a stream of events?"""
    answer = case.operation.definition.raw.get("responses", {}).get("200", {})
    return STREAM_TYPE in answer.get("content", {})


def complaints(case: schemathesis.Case, response: Any) -> Iterator[str]:
    """What is wrong with an answer."""
    status = response.status_code
    if status < 400:
        try:
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as group:
            yield from (f"{failure.title}: {failure.message[:400]}" for failure in group.exceptions)
        except Failure as failure:
            yield f"{failure.title}: {failure.message[:400]}"
        return
    if case.method.upper() == "HEAD":
        return
    kind = ",".join(response.headers.get("content-type", []))
    if kind != PROBLEM_TYPE:
        yield f"{status} is {kind or 'of no type'}, not a problem document"
        return
    code = json.loads(response.content).get("code")
    if code not in PROBLEMS or PROBLEMS[code].status != status:
        yield f"{status} has the code {code!r}"
    elif status >= 500:
        yield f"{status} {code}"


def frames() -> st.SearchStrategy[bytes]:
    """Safetensors bodies: of the run's layout, good ones of another, hostile ones, and noise."""
    kept = sorted(path.read_bytes() for path in FRAMES.rglob("*.safetensors") if path.stat().st_size < 4096)
    small = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2).map(frame)
    return st.one_of(small, small, st.sampled_from(kept), st.binary(max_size=64))


def frame(values: list[float]) -> bytes:
    """A gradient of the tensor `w` float32[2]."""
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    header += b" " * (-(8 + len(header)) % 8)
    return struct.pack("<Q", len(header)) + header + struct.pack("<2f", *values)


def single_requests(fuzz: Fuzz, schema: Any, chosen: int, only: str | None, each: int) -> None:
    """Each operation by itself, `each` times."""
    for found in schema.get_all_operations():
        operation = found.ok()
        name = operation.definition.raw["operationId"]
        if only not in (None, name) or fuzz.done:
            continue
        kinds = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
        case_of = st.one_of(*[strategy_of(operation, kind) for kind in kinds])

        @seed(chosen)
        @quiet(each)
        @given(case=case_of)
        def ask(case: schemathesis.Case) -> None:
            if not fuzz.done:
                fuzz.call(case)

        prepare(fuzz.url)
        ask()


def strategy_of(operation: Any, kind: Any) -> st.SearchStrategy[Any]:
    """Requests of the operation. One without anything to get wrong has no negative ones."""
    try:
        return operation.as_strategy(generation_mode=kind)
    except Exception as error:  # whatever the library calls it
        if "negative" not in str(error).lower():
            raise
        return operation.as_strategy()


def chains(fuzz: Fuzz, schema: Any, chosen: int, scenarios: int) -> None:
    """Requests that follow from each other along the links of the document."""

    class Chain(schema.as_state_machine()):  # type: ignore[misc]
        def step(self, input: Any) -> Any:
            response = None if fuzz.done else fuzz.call(input.case)
            return (
                None
                if response is None
                else schemathesis.generation.stateful.state_machine.StepOutput(response, input.case)
            )

    fuzz.in_chain = True
    for scenario in range(scenarios):
        # One at a time: the server's state goes on between them, which Hypothesis would take for a flaky strategy.
        Chain._hypothesis_internal_use_seed = chosen + scenario
        with contextlib.suppress(FlakyStrategyDefinition):
            Chain.run(settings=quiet(1, stateful_step_count=12))
    fuzz.in_chain = False


def quiet(examples: int, **more: Any) -> settings:
    """Nothing is shrunk and nothing is kept: a failure is shown as it came."""
    return settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate], verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck), **more,
    )  # fmt: skip


@contextlib.contextmanager
def server(place: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`gradserve serve` on a store of its own."""
    words = [sys.executable, "-m", "gradserve_service", "serve", "--json", "--port", "0", "--log-format", "json"]
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GRADSERVE_")}
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [*words, "--store", f"sqlite:///{place}/fuzz.db"], stdout=subprocess.PIPE, stderr=log, text=True,
            env=environment,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit((place / "log").read_text())
        yield json.loads(line)["url"], process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def prepare(url: str) -> None:
    """Runs that exist, with weights: most requests about a made-up name end at the first check."""
    for name in RUNS:
        spec = {"optimizer": "adam" if name == "adam" else "sgd", "weights": {"w": [1.0, 2.0]}}
        requests.put(f"{url}/v1/runs/{name}", json=spec, timeout=ANSWER_SECONDS_MAX)
        requests.patch(f"{url}/v1/runs/{name}", json={"state": "running"}, timeout=ANSWER_SECONDS_MAX)
        requests.put(f"{url}/v1/runs/{name}/checkpoints/c", timeout=ANSWER_SECONDS_MAX)


def show(fuzz: Fuzz) -> None:
    """The answers by operation and status."""
    statuses = sorted({status for _, status in fuzz.answers})
    width = max(len(operation) for operation, _ in fuzz.answers)
    print(" " * width, *(f"{status:>6}" for status in statuses))
    for operation in sorted({operation for operation, _ in fuzz.answers}):
        print(f"{operation:{width}}", *(f"{fuzz.answers[operation, status] or '':>6}" for status in statuses))
    totals = Counter[str]()
    for (_, status), count in fuzz.answers.items():
        totals[status] += count
    print(f"{'all':{width}}", *(f"{totals[status]:>6}" for status in statuses))


def main() -> int:
    """Run it; 1 when something came that should not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=1000, help="requests to send, at least")
    parser.add_argument("--seed", type=int, default=None, help="makes the same requests again")
    parser.add_argument("--operation", default=None, help="only this operation, by its operationId")
    asked = parser.parse_args()
    chosen = secrets.randbits(32) if asked.seed is None else asked.seed
    print(f"seed {chosen}", flush=True)
    schemathesis.openapi.media_type(MEDIA_TYPE, frames())
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (url, process):
        fuzz = Fuzz(url, asked.cases, chosen)
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = 1 if asked.operation else schema.statistic.operations.total
        turn = 0
        while not fuzz.done:
            each = max(2, min(50, asked.cases // (2 * operations)))
            single_requests(fuzz, schema, chosen + turn, asked.operation, each)
            if asked.operation is None and not fuzz.done:
                chains(fuzz, schema, chosen + turn, max(5, asked.cases // 100))
            turn += 1
        alive = process.poll() is None
        for line in (Path(folder) / "log").read_text().splitlines():
            if '"error"' in line:
                fuzz.failures["server", "log"] = line[:4000]
    show(fuzz)
    for (operation, _), text in list(fuzz.failures.items())[:FAILURES_SHOWN]:
        print(f"\n--- {operation}\n{text}")
    print(f"\n{fuzz.asked} requests, seed {chosen}: {len(fuzz.failures)} failed", "" if alive else "; the server died")
    return 1 if fuzz.failures or not alive else 0


if __name__ == "__main__":
    sys.exit(main())
