"""The interpreter of session.txt: runs each command with the real curl and holds the answer to what is written."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from faults.processes import Answer, Server, environment
from gradserve.problems import PROBLEMS

INSTALL = "apt-get install -y curl"
CURL_SECONDS_MAX = 100
ALWAYS = ("--silent", "--show-error", "--noproxy", "*", "--max-time", str(CURL_SECONDS_MAX))
PROBLEM_MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}
TOLERANCE = 1e-6  # the expected weights are computed in double precision


def require_curl() -> None:
    """curl is part of what is tested: without it the test installs it as root, else fails with the line to type."""
    if shutil.which("curl") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(INSTALL.split(), check=False, capture_output=True)
    assert shutil.which("curl"), f"this test needs the curl command. Type this and try again:\n\n    sudo {INSTALL}\n"


@dataclass
class Step:
    """One command of the script and what has to come of it."""

    line: int
    command: str  # with its $ or !
    status: int | None = None
    code: str | None = None
    members: str = ""  # JSON text, variables not yet filled in
    headers: list[tuple[str, str]] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)


def steps(script: Path) -> Iterator[Step]:
    """The script's commands, in order."""
    step: Step | None = None
    for number, line in enumerate(script.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith(("$ ", "! ")):
            if step is not None:
                yield step
            step = Step(number, line)
        elif line and not line.startswith("#"):
            assert step is not None, f"line {number} belongs to no command"
            _expectation(step, line)
    assert step is not None
    yield step


def _expectation(step: Step, line: str) -> None:
    if status := re.fullmatch(r"(\d{3})(?: ([a-z-]+))?(?: (\{.*\}))?", line):
        step.status, step.code, step.members = int(status[1]), status[2], status[3] or ""
    elif kept := re.fullmatch(r"([A-Z][A-Z0-9]*) = (\S+)", line):
        step.kept.append((kept[1], kept[2]))
    elif header := re.fullmatch(r"([A-Za-z-]+): (.*)", line):
        step.headers.append((header[1].lower(), header[2]))
    else:
        raise AssertionError(f"line {line!r} is no expectation")


class Session:
    """A run of the script against a server. `saved` holds what `! save` kept, by its words."""

    def __init__(self, server: Server, folder: Path, values: Mapping[str, str]) -> None:
        self.server = server
        self.saved: dict[str, bytes] = {}
        self._folder = folder
        self._values = {"URL": server.url, **values}
        self._meanwhile: subprocess.Popen[bytes] | None = None

    def play(self, script: Path) -> None:
        """Every step, in order. Raises `AssertionError` naming the line of the script."""
        for step in steps(script):
            try:
                self._take(step)
            except AssertionError as error:
                raise AssertionError(f"{script.name}:{step.line}: {step.command}\n{error}") from None

    def _take(self, step: Step) -> None:
        words = step.command[2:]
        if step.command.startswith("$"):
            self._check(step, self._finished(self._curl(words, "now"), "now"))
        elif words.startswith("meanwhile "):
            self._meanwhile = self._curl(words.removeprefix("meanwhile "), "meanwhile")
        elif words == "it answers":
            assert self._meanwhile is not None
            self._check(step, self._finished(self._meanwhile, "meanwhile"))
        elif words == "kill -9 and restart":
            self.server.kill()
            self.server.start()
        elif words.startswith("save "):
            _, what, name = words.split()
            self._save(what, f"{what} {name}")
        else:
            raise AssertionError("nothing is done by this word")

    def _save(self, what: str, name: str) -> None:
        tensors = "curl -H 'Accept: application/vnd.safetensors' $URL/v1/runs/lin/" + what
        answer = self._finished(self._curl(tensors, "now"), "now")
        assert answer.status == 200, answer.body
        self.saved[name] = answer.body

    # curl

    def _curl(self, command: str, name: str) -> subprocess.Popen[bytes]:
        program, *words = [self._filled(word) for word in shlex.split(command)]
        assert program == "curl"
        places = (
            "--dump-header",
            str(self._folder / f"{name}.headers"),
            "--output",
            str(self._folder / f"{name}.body"),
        )
        (self._folder / f"{name}.body").write_bytes(b"")  # curl makes no file for an answer without a body
        return subprocess.Popen(
            ["curl", *ALWAYS, *places, "--write-out", "%{http_code}", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )

    def _finished(self, curl: subprocess.Popen[bytes], name: str) -> Answer:
        try:
            status, errors = curl.communicate(timeout=CURL_SECONDS_MAX + 10)
        finally:
            curl.kill()
        assert curl.returncode == 0, f"curl ended with {curl.returncode}: {errors.decode()}"
        block = (self._folder / f"{name}.headers").read_text(encoding="latin-1").rstrip().rpartition("\r\n\r\n")[2]
        headers = dict(line.split(": ", 1) for line in block.split("\n")[1:] if ": " in line)
        body = (self._folder / f"{name}.body").read_bytes()
        return Answer(int(status), {key: value.strip() for key, value in headers.items()}, body)

    # The answer

    def _check(self, step: Step, answer: Answer) -> None:
        shown = f"{answer.status} {answer.body.decode('utf-8', 'replace')}"
        assert answer.status == step.status, f"expected {step.status}, came {shown}"
        if step.code is not None:
            _check_problem(step.code, answer)
        if step.members:
            expected = json.loads(self._filled(step.members))
            if difference := differs(expected, answer.json(), "answer"):
                raise AssertionError(f"{difference}\nthe whole answer: {shown}")
        for name, pattern in step.headers:
            came = answer.headers.get(name)
            assert came is not None, f"expected header {name}, came {sorted(answer.headers)}"
            assert fnmatchcase(came, self._filled(pattern)), f"header {name}: expected {pattern}, came {came}"
        for name, place in step.kept:
            self._values[name] = _member(answer, place)

    def _filled(self, text: str) -> str:
        """`$NAME` as it is, `%NAME` as a JSON string."""
        text = re.sub(r"\$([A-Z][A-Z0-9]*)", lambda match: self._values[match[1]], text)
        return re.sub(r"%([A-Z][A-Z0-9]*)", lambda match: json.dumps(self._values[match[1]]), text)


def _member(answer: Answer, place: str) -> str:
    if place.startswith("header:"):
        return answer.headers[place.removeprefix("header:")]
    value = answer.json()
    for name in place.split("."):
        value = value[name]
    return str(value)


def _check_problem(code: str, answer: Answer) -> None:
    """The form that every refusal has (http-api, Problems), with the words of the one table."""
    document, problem = answer.json(), PROBLEMS[code]
    assert answer.headers["content-type"] == "application/problem+json"
    assert document.keys() >= PROBLEM_MEMBERS, f"a problem has {sorted(PROBLEM_MEMBERS)}, came {document}"
    came = (document["code"], document["type"], document["status"], document["title"])
    assert came == (code, f"/problems/{code}", problem.status, problem.title), f"expected {code}, came {document}"
    assert answer.status == problem.status
    assert document["request_id"] == answer.headers["request-id"]
    assert document["detail"]
    assert document["instance"].startswith("/v1/")
    retry_after = problem.retry_after_seconds
    assert answer.headers.get("retry-after") == (None if retry_after is None else str(retry_after))


def differs(expected: Any, came: Any, place: str) -> str | None:
    """What is different, None if nothing is. Objects may have more members; "*" is anything but null."""
    if expected == "*":
        return None if came is not None else f"{place}: expected a value, came null"
    if isinstance(expected, dict):
        if not isinstance(came, dict):
            return f"{place}: expected an object, came {came!r}"
        if missing := expected.keys() - came.keys():
            return f"{place}: {', '.join(sorted(missing))} missing"
        return next((d for key, v in expected.items() if (d := differs(v, came[key], f"{place}.{key}"))), None)
    if isinstance(expected, list):
        if not isinstance(came, list) or len(came) != len(expected):
            return f"{place}: expected {expected}, came {came}"
        pairs = enumerate(zip(expected, came, strict=True))
        return next((d for i, (a, b) in pairs if (d := differs(a, b, f"{place}[{i}]"))), None)
    numbers = [type(value) in (int, float) for value in (expected, came)]
    same = math.isclose(expected, came, rel_tol=TOLERANCE, abs_tol=TOLERANCE) if all(numbers) else expected == came
    return None if same else f"{place}: expected {expected!r}, came {came!r}"
