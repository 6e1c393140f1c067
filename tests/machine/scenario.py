"""One interpreter for scenario scripts: commands, and under each the answer that is expected.

    run optimizer={"name": "sgd", "lr": 0.5}      a new run
    load {"w": [1, 2]}  [if_none_match=*] [if_match=@0] [key=k]
    push a 1 {"w": [2, 0]}  [base=0] [etag=@0] [generation=1] [after=@a] [cursor=c] [loss=0.5] [lr=0.1]
                            [samples=8] [loss_scale=2]
    register a instance=x  [generation=1]
    leave a  [generation=1] [next_sequence=2] [after=@a]
    configure {"optimizer": {"lr": 0.1}}  [key=k]
    report {"loss": 0.5}  [version=3] [key=k] [own=s] [times=9]   own: the server's name for it
    save NAME                                     a checkpoint of the state, through its file and back
    restore NAME  [key=k] [first_only=true]       that state again
    remember NAME @a                              keep a receipt or an ETag under another name
    lose 2                                        the journal loses its last entries
    restart                                       state through an image and back
    weights · memory · worker a · state · counts · history look

`@0` is the ETag of version 0 and `@a` the receipt of worker a, as this history made them. Answers are compared as text.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from gradserve.problems import Rejection
from gradserve.specs import RunChanges, RunSpec
from gradserve.wire import Frame, frame_from_json
from gradserve_service.core import schedules
from gradserve_service.core.arrays import Arrays, update
from gradserve_service.core.checkpoint import (
    SavedState,
    decode_checkpoint,
    encode_checkpoint,
    payload_frame,
    saved_state,
)
from gradserve_service.core.control import Control, Creation
from gradserve_service.core.entries import Entry, genesis_hash
from gradserve_service.core.gradient import Gradient, non_finite_tensors
from gradserve_service.core.image import decode_image, encode_image, image_digest, state_digest
from gradserve_service.core.machine import (
    Answered,
    Append,
    Configure,
    Leave,
    Load,
    Push,
    Register,
    Report,
    Request,
    Restore,
    Verdict,
    advance,
    decide,
)

UID = "0" * 32


class Scenario:
    """The rules of one run, driven by commands. Holds the whole chain, so that its tail can be lost."""

    def __init__(self) -> None:
        self.remembered: dict[str, str] = {}
        self.saved: dict[str, SavedState] = {}
        self.chain: list[tuple[Entry, Frame | None]] = []

    def answer(self, line: str) -> str:
        """Carry out one command."""
        verb, *words = shlex.split(line.replace('"', '\\"'))
        plain = [word for word in words if not _is_option(word)]
        options = {key: self._value(value) for key, value in (word.split("=", 1) for word in words if _is_option(word))}
        answer = getattr(self, f"do_{verb}")(*plain, **options)
        return str(answer)

    def _value(self, text: str) -> Any:
        if text.startswith("@"):
            return self._symbol(text)
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text

    def _symbol(self, text: str) -> str:
        name = text[1:]
        if name in self.remembered:
            return self.remembered[name]
        if name.isdecimal():
            return self.control.etags[int(name)]
        receipt = self.control.row(name).receipt
        assert receipt is not None
        return receipt

    # Commands

    def do_run(self, **spec: Any) -> str:
        self.creation = Creation(RunSpec.model_validate(spec), 1 << 20, 4).to_bytes()
        self._begin()
        return "created"

    def _begin(self) -> None:
        self.control = Control.genesis(UID, self.creation, genesis_hash(UID, self.creation))
        self.arrays = Arrays(self.control.spec)

    def do_load(self, tensors: str, **options: Any) -> str:
        frame = frame_from_json(json.loads(tensors))
        options["if_none_match"] = options.pop("if_none_match", None)
        options["idempotency_key"] = options.pop("key", None)
        load = Load(frame.layout, frame.digest, frame.size, frame.dtype, tuple(non_finite_tensors(frame)), **options)
        return self._carry_out(load, frame) or f"version={self.control.version} floor={self.control.base_floor}"

    def do_push(self, worker: str, sequence: str, tensors: str, **options: Any) -> str:
        frame = frame_from_json(json.loads(tensors))
        options["base_version"] = options.pop("base", None)
        options["base"] = options.pop("etag", None)
        push = Push(
            worker, int(sequence), frame.digest, frame.size, frame.dtype, frame.layout,
            non_finite=tuple(non_finite_tensors(frame, loss_scale=options.get("loss_scale"))), **options,
        )  # fmt: skip
        if answer := self._carry_out(push, frame):
            return answer
        outcome = self.control.row(worker).outcome
        assert outcome is not None
        shown = {key: value for key, value in outcome.items() if key not in ("outcome", "batch")}
        shown |= _counts(outcome.get("batch"))
        return " ".join([outcome["outcome"], *(f"{key}={value}" for key, value in shown.items())])

    def do_register(self, worker: str, **options: Any) -> str:
        return self._carry_out(Register(worker, **options), None) or self.do_worker(worker)

    def do_leave(self, worker: str, **options: Any) -> str:
        return self._carry_out(Leave(worker, **options), None) or "left"

    def do_configure(self, changes: str, key: str | None = None) -> str:
        request = Configure(RunChanges.model_validate(json.loads(changes)), key)
        return self._carry_out(request, None) or f"lr={self.control.spec.optimizer.lr} state={self.control.state}"

    def do_save(self, name: str) -> str:
        file = memoryview(b"".join(encode_checkpoint(saved_state(self.control, self.arrays))))
        self.saved[name] = decode_checkpoint(file)
        return f"version={self.saved[name].version} step={self.saved[name].step}"

    def do_restore(self, name: str, key: str | None = None, first_only: bool = False) -> str:
        saved = self.saved[name]
        frame = payload_frame(saved)
        request = Restore(
            saved.layout, saved.slot_shapes, saved.step, saved.memory, saved.plateau, saved.updates,
            saved.samples_seen, saved.spec["schedule"], {"checkpoint": name}, frame.digest, frame.size, first_only, key,
        )  # fmt: skip
        c = self.control
        return self._carry_out(request, frame) or f"version={c.version} step={c.step} floor={c.base_floor}"

    def do_report(
        self, values: str, version: int | None = None, key: str | None = None, own: str | None = None, times: int = 1
    ) -> str:
        for number in range(times - 1):  # others before it, each with a name of its own
            self.do_report(values, version, key and f"{key}-{number}", own and f"{own}-{number}")
        request = Report(json.loads(values), version, key, own)
        return self._carry_out(request, None) or f"lr={self._rate()}"

    def _rate(self) -> float:
        c = self.control
        return schedules.resolve(c.spec.schedule, c.spec.optimizer.lr, c.step, c.plateau)[0]

    def do_remember(self, name: str, symbol: str) -> str:
        self.remembered[name] = self._symbol(symbol)
        return "remembered"

    def do_lose(self, count: str) -> str:
        kept = self.chain[: -int(count)]
        self.chain = []
        self._begin()
        for entry, frame in kept:
            self._adopt(entry, frame)
        return f"position={self.control.position} version={self.control.version}"

    def do_restart(self) -> str:
        pieces = encode_image(self.control, self.arrays)
        image = memoryview(b"".join(pieces))
        control, arrays = decode_image(image, UID, self.creation, image_digest(pieces))
        assert control == self.control
        assert arrays.memory == self.arrays.memory
        assert state_digest(control, arrays) == state_digest(self.control, self.arrays)
        assert list(control.workers) == list(self.control.workers)
        self.control, self.arrays = control, arrays
        return f"position={control.position} version={control.version}"

    def do_weights(self) -> str:
        assert self.arrays.layout is not None
        assert self.arrays.weights is not None
        views = self.arrays.layout.views(self.arrays.weights)
        return json.dumps({name: view.tolist() for name, view in views.items()})

    def do_memory(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.arrays.memory.items()) or "nothing"

    def do_worker(self, worker: str) -> str:
        row = self.control.row(worker)
        gone = " departed" if row.departed else ""
        return f"generation={row.generation} next_sequence={row.next_sequence} cursor={row.cursor}{gone}"

    def do_state(self) -> str:
        c = self.control
        return f"position={c.position} version={c.version} step={c.step} floor={c.base_floor} state={c.state}"

    def do_counts(self) -> str:
        return f"updates={self.control.updates} samples_seen={self.control.samples_seen} epoch={self.control.epoch}"

    def do_history(self) -> str:
        row = self.arrays.history.row(self.control.version)
        assert row is not None
        names = ("loss", "lr", "gradient_norm", "clip_scale", "staleness", "samples")
        return " ".join(f"{name}={getattr(row, name)}" for name in names)

    # The rules

    def _carry_out(self, request: Request, frame: Frame | None) -> str | None:
        before = self.control.to_json()
        verdict: Verdict = decide(self.control, request, at=0)
        assert self.control.to_json() == before, "decide changed the control state"
        if isinstance(verdict, Rejection):
            extras = " ".join(f"{key}={value}" for key, value in sorted(verdict.extras.items()))
            for version, etag in self.control.etags.items():
                extras = extras.replace(etag, f"@{version}")
            return f"refused {verdict.code} {extras}".rstrip()
        if isinstance(verdict, Answered):
            if verdict.made is not None:
                return f"again version={verdict.made.version} step={verdict.made.step}"
            return None if verdict.original is None else f"duplicate of version={verdict.original['version']}"
        assert isinstance(verdict, Append)
        self._adopt(verdict.entry, frame)
        return None

    def _adopt(self, entry: Entry, frame: Frame | None) -> None:
        payload: Any = None
        if frame is not None and entry.kind == "load":
            payload = frame.vector()
        elif frame is not None and entry.header["size"]:
            assert self.arrays.layout is not None
            payload = Gradient.of(frame, self.arrays.layout, loss_scale=entry.header.get("loss_scale"))
        advance(self.control, entry)
        update(self.arrays, entry, payload)
        self.chain.append((entry, frame))
        assert (self.arrays.version, self.arrays.step) == (self.control.version, self.control.step)


def _counts(batch: Any) -> dict[str, str]:
    """A batch in a word: `batch=2/4.0` are two pushes of four samples."""
    return {} if batch is None else {"batch": f"{batch['pushes']}/{batch['samples']}"}


def _is_option(word: str) -> bool:
    return "=" in word and word.split("=", 1)[0].isidentifier()


def run_script(path: Path) -> list[tuple[int, str, str, str]]:
    """`(line number, command, expected, answered)` for each command of a script."""
    scenario, steps = Scenario(), list[tuple[int, str, str, str]]()
    lines = [line.split("  #")[0].rstrip() for line in path.read_text().splitlines()]
    commands = [(n, line) for n, line in enumerate(lines, 1) if line and not line.startswith(("#", "    "))]
    for number, command in commands:
        expected = lines[number].strip() if number < len(lines) and lines[number].startswith("    ") else ""
        steps.append((number, command, expected, scenario.answer(command)))
    return steps
