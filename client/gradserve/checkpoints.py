"""Named states of a run: the conversations about them, and their way from and to files."""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from numpy.typing import ArrayLike

from .errors import CheckpointNotFound, GradserveError, Misuse, ValidationError
from .flows import (
    ACCEPT_JSON,
    ACCEPT_TENSORS,
    FirstWeights,
    OpenedRun,
    RunKey,
    ask_json,
    checked_name,
    json_request,
    open_run_flow,
)
from .messages import Flow, Request, ask
from .wire import MEDIA_TYPE, encode_frame

FilePath: TypeAlias = str | os.PathLike[str]
Pieces: TypeAlias = tuple[bytes | memoryview, ...]

AWAY_SECONDS = 600.0  # a checkpoint of a large run is written and read by the server before it answers


def save_checkpoint_flow(run: RunKey, name: str, content: Pieces, idempotency_key: str) -> Flow[dict[str, Any]]:
    """Keep the run's present state (no content), or import this one, under a name. One that exists is answered."""
    headers = (*ACCEPT_JSON, ("Idempotency-Key", idempotency_key), *run.guard)
    if content:
        headers = (("Content-Type", MEDIA_TYPE), *headers)
    body = content or (b"",)  # a body of no bytes is announced: Content-Length 0
    return (yield from ask_json(Request("PUT", _path(run, name), headers, body, wait_seconds=AWAY_SECONDS)))


def checkpoints_flow(run: RunKey) -> Flow[list[dict[str, Any]]]:
    """All checkpoints, in name order."""
    answer = yield from ask_json(Request("GET", f"{run.path}/checkpoints", (*ACCEPT_JSON, *run.guard)))
    found: list[dict[str, Any]] = answer["checkpoints"]
    return found


def download_flow(run: RunKey, name: str, into: BinaryIO) -> Flow[None]:
    """The checkpoint's safetensors, written into a file. Raises `CheckpointNotFound`."""
    headers = (*ACCEPT_TENSORS, *run.guard)
    response = yield from ask(Request("GET", _path(run, name), headers, wait_seconds=AWAY_SECONDS, into=into))
    if response.status != 200:
        raise response.error()


def delete_checkpoint_flow(run: RunKey, name: str) -> Flow[None]:
    """Delete it. That there is none is as good: the answer to an earlier try may have been lost."""
    response = yield from ask(Request("DELETE", _path(run, name), (*ACCEPT_JSON, *run.guard)))
    if response.status >= 300 and not isinstance(error := response.error(), CheckpointNotFound):
        raise error


def restore_flow(
    run: RunKey, checkpoint: str | None, version: int | None, idempotency_key: str
) -> Flow[dict[str, Any]]:
    """Go back to a checkpoint or a kept version; the version number goes on rising."""
    if (checkpoint is None) == (version is None):
        raise ValidationError("restore: expected a checkpoint or a version, came both or neither")
    body = {"version": version} if checkpoint is None else {"checkpoint": checked_name("checkpoint", checkpoint)}
    extra = (("Idempotency-Key", idempotency_key), *run.guard)
    answer: dict[str, Any] = yield from ask_json(json_request("POST", f"{run.path}/restore", body, extra))
    return answer


def branch_flow(
    run: RunKey, name: str, checkpoint: str | None, settings: Mapping[str, Any], idempotency_key: str
) -> Flow[OpenedRun]:
    """A new run that starts from a checkpoint of this one; without one, from its present state.

    The present state passes through a checkpoint that is made for this, under a name of its own, and is gone after.
    """
    checked_name("run", name)
    if checkpoint is not None:
        return (yield from _branch_from(run, name, checked_name("checkpoint", checkpoint), settings))
    passing = f"branch-{idempotency_key}"[:100]
    yield from save_checkpoint_flow(run, passing, (), idempotency_key)
    try:
        opened = yield from _branch_from(run, name, passing, settings)
    except GradserveError:
        yield from delete_checkpoint_flow(run, passing)
        raise
    yield from delete_checkpoint_flow(run, passing)
    return opened


def _branch_from(run: RunKey, name: str, checkpoint: str, settings: Mapping[str, Any]) -> Flow[OpenedRun]:
    origin = {"run": run.name, "checkpoint": checkpoint}
    return (yield from open_run_flow(name, {**settings, "branch": origin}, None, rank=0))


@contextlib.contextmanager
def whole_file(path: FilePath) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is whole, and not at all when something fails before."""
    target = Path(path)
    if not target.parent.is_dir():
        raise Misuse(f"{target}: expected a path in a folder that exists, there is no {target.parent}: make it first")
    with tempfile.NamedTemporaryFile("wb", dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        try:
            yield file.file  # type: ignore[misc]  # the plain file inside
            file.flush()
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise


def checkpoint_content(source: FilePath | Mapping[str, ArrayLike]) -> Pieces:
    """A safetensors file as it lies on the disk, or a dict of arrays as float32. Raises `ValidationError`."""
    if isinstance(source, Mapping):
        weights = FirstWeights.of(source, "source")
        return tuple(encode_frame(weights.layout, weights.vector))
    if not isinstance(source, str | os.PathLike):
        raise ValidationError(f"source: expected a path or a dict of arrays, came {type(source).__name__}")
    with open(source, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ValidationError(f"{os.fspath(source)}: expected a safetensors file, came an empty one")
        return (memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)),)


def _path(run: RunKey, name: str) -> str:
    return f"{run.path}/checkpoints/{checked_name('checkpoint', name)}"
