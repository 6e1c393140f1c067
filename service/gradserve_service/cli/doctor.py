"""`gradserve doctor`: would a server run well here? A line for each thing that has gone wrong before, and its cure."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from re import match
from typing import Annotated, Any, Literal

import numpy as np
import typer

import gradserve as gs
from gradserve_service.core import numerics
from gradserve_service.settings import Settings, SettingsError, read_settings
from gradserve_service.store import StoreUnavailable, StoreUnfit, open_to_read
from gradserve_service.store.place import sqlite_path
from gradserve_service.store.records import DURABILITY_LEVELS

from .asking import PATIENCE_SECONDS, Token, Url, connected
from .printing import FAILED, AsJson, StoreUrl, amount, fail, print_json, print_table

__all__ = ["doctor"]

OLDEST_PYTHON = (3, 11)
DISK_BYTES_LOW = 1 << 30
DISK_BYTES_LEAST = 64 << 20  # of a journal between two snapshots
MEMORY_SHARE_HIGH = 0.7  # from here on pushes get 429
FUTURE_SECONDS = 60
RELEASED_AT = 1_760_000_000  # no clock that goes right shows a time before this

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Line:
    """One check: what was looked at, how it is, and the cure when it is not well."""

    check: str
    verdict: Verdict
    found: str
    cure: str = ""


def doctor(
    store: StoreUrl = None,
    durability: Annotated[str | None, typer.Option(help="Least level that the store has to give.")] = None,
    host: Annotated[str | None, typer.Option(help="Address that a server would listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port that a server would listen on.")] = None,
    url: Url = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine, its store and its settings, as `gradserve serve` would find them; with --url a server too.

    Exit code 1 if something would stop a server or make it lose or miscompute anything; a warning alone is 0.
    """
    try:
        settings = read_settings(store=store, durability=durability, host=host, port=port)
    except SettingsError as error:
        fail(str(error))
    lines = [*_machine(), *asyncio.run(_store(settings)), *_disk(settings), *_place(settings)]
    if url is not None:
        lines += _server(url, token)
    worst = max(("ok", "warn", "fail").index(line.verdict) for line in lines)
    if as_json:
        print_json({"verdict": ("ok", "warn", "fail")[worst], "checks": [asdict(line) for line in lines]})
    else:
        print_table(("", "check", "found"), [(line.verdict, line.check, line.found) for line in lines])
        for line in lines:
            if line.cure:
                print(f"{line.verdict}: {line.check}: {line.cure}")
    if worst == 2:
        raise typer.Exit(FAILED)


# This machine


def _machine() -> Iterator[Line]:
    python = sys.version.split()[0]
    old = sys.version_info[:2] < OLDEST_PYTHON
    yield Line("python", "fail" if old else "ok", python, "install Python 3.11 or newer" if old else "")
    yield _packages()
    complaints = numerics.complaints()
    found = f"NumPy {np.__version__}: {len(numerics.GOLDEN)} golden updates end in the right bits, denormals are kept"
    yield Line("numerics", "fail" if complaints else "ok", "; ".join(complaints) or found, "; ".join(complaints))
    now = time.time()
    wrong = now < RELEASED_AT
    yield Line(
        "clock",
        "fail" if wrong else "ok",
        time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now)),
        "set the clock: entries carry its time, and certificates are checked against it" if wrong else "",
    )


def _packages() -> Line:
    """Are the packages of the `service` extra there?"""
    wanted = [match(r"[\w.-]+", row).group() for row in requires("gradserve") or () if 'extra == "service"' in row]  # type: ignore[union-attr]
    missing = [name for name in wanted if _version(name) is None and "win32" not in name]
    if missing:
        cure = "pip install 'gradserve[service]'"
        return Line("packages", "warn", f"not installed: {', '.join(missing)}", cure)
    return Line("packages", "ok", f"gradserve {version('gradserve')} with all of its service extra")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# The store


async def _store(settings: Settings) -> list[Line]:
    """Reachable, fit, at the durability that is wanted, with room."""
    try:
        if settings.store.startswith("sqlite") and not sqlite_path(settings.store).exists():
            return [_new_database(sqlite_path(settings.store))]
        store = await open_to_read(settings.store)
    except StoreUnfit as unfit:
        held = "is held by the server" in str(unfit)
        cure = "nothing, if that server is the one you mean" if held else str(unfit)
        return [Line("store", "warn" if held else "fail", str(unfit), cure)]
    except StoreUnavailable as error:
        cure = "start it, or name another --store; a server waits for it and is not ready until then"
        return [Line("store", "fail", str(error), cure)]
    try:
        newest = max((run.created_at for run in await store.names(limit=1000)), default=0)
        pressure = await store.memory_pressure()
        level, limit = store.durability, store.memory_limit
    except StoreUnavailable as error:
        return [Line("store", "fail", str(error), "look at its log")]
    finally:
        await store.close()
    lines = [Line("store", "ok", f"{store.url} answers")]
    if store.kind == "redis":
        lines.append(_redis_durability(level, settings))
        lines.append(_redis_memory(pressure, limit))
    if newest / 1000 > time.time() + FUTURE_SECONDS:
        lines.append(Line("clock of the store", "warn", "a run was created in the future", "set this machine's clock"))
    return lines


def _redis_durability(level: Any, settings: Settings) -> Line:
    if DURABILITY_LEVELS.index(level) >= DURABILITY_LEVELS.index(settings.durability):
        return Line("durability", "ok", f"gives {level}, wanted {settings.durability}; eviction is off")
    cure = (
        "in redis.conf: appendonly yes, appendfsync everysec (journal) or always (fsync); or ask for less with "
        f"--durability {level}"
    )
    return Line("durability", "fail", f"gives {level}, wanted {settings.durability}", cure)


def _redis_memory(pressure: float, limit: int | None) -> Line:
    if limit is None:
        cure = "set maxmemory below the machine's memory (policy noeviction): else the kernel may kill Redis"
        return Line("memory", "warn", "Redis has no maxmemory", cure)
    high = pressure >= MEMORY_SHARE_HIGH
    cure = "raise maxmemory, delete runs, or give this server another Redis: pushes get 429" if high else ""
    return Line("memory", "warn" if high else "ok", f"{pressure:.0%} of {amount(limit)} in use", cure)


def _new_database(path: Path) -> Line:
    """The folder must be there to be written into, or be makeable."""
    folder = _existing(path.parent)
    if os.access(folder, os.W_OK):
        return Line("store", "ok", f"{path} will be made")
    return Line(
        "store", "fail", f"{folder} cannot be written", f"chown it to this user, or name another --store: {path}"
    )


def _disk(settings: Settings) -> Iterator[Line]:
    if not settings.store.startswith("sqlite"):
        return
    folder = _existing(sqlite_path(settings.store).parent)
    free = shutil.disk_usage(folder).free
    verdict: Verdict = "fail" if free < DISK_BYTES_LEAST else "warn" if free < DISK_BYTES_LOW else "ok"
    cure = "make room, or put the store on a larger disk" if verdict != "ok" else ""
    yield Line("disk", verdict, f"{amount(free)} free in {folder.absolute()}", cure)


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


# The place to listen, and a server


def _place(settings: Settings) -> Iterator[Line]:
    if settings.uds is not None:
        there = settings.uds.parent.is_dir()
        cure = "" if there else "make the folder, or choose another --uds"
        yield Line("socket", "ok" if there else "fail", str(settings.uds), cure)
        return
    where = f"{settings.host}:{settings.port}"
    try:
        family, *_, place = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(place[:2], family=family):
            yield Line("port", "ok", f"{where} is free")
    except OSError as error:
        cure = "nothing, if that is the server you mean; else choose another --port or --host"
        yield Line("port", "warn", f"cannot listen on {where}: {error.strerror}", cure)


def _server(url: str, token: str | None) -> Iterator[Line]:
    """Does it answer, is it of this version, is it ready?"""
    try:
        with connected(url, token, PATIENCE_SECONDS) as client:
            server = client.server()
    except (gs.GradserveError, ValueError) as error:
        yield Line("server", "fail", str(error), "start it, or correct --url and --token")
        return
    other = server["version"] != version("gradserve")
    yield Line(
        "server",
        "warn" if other else "ok",
        f"{url} answers: version {server['version']}, {server['store']['kind']}, durability {server['durability']}",
        f"this command is version {version('gradserve')}: install the same on both sides" if other else "",
    )
    if server["draining"]:
        yield Line("server is ready", "warn", "it is shutting down", "wait for its successor")
