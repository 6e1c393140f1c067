"""The commands. Each imports what it needs when it runs: `gradserve --help` answers at once."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from gradserve_service.settings import ENVIRONMENT_PREFIX, Settings, SettingsError, read_settings

from .printing import complaints_as_lines, fail, print_json

__all__ = ["app"]

# Commands that live elsewhere: module, function, and the extra that it needs; imported when asked for.
ELSEWHERE = {
    "demo": ("gradserve_service.demo.command", "demo", "demo"),
    "compare": ("gradserve_service.compare.command", "compare_command", "demo"),
    "status": ("gradserve_service.cli.runs", "status", "service"),
    "watch": ("gradserve_service.cli.runs", "watch", "service"),
    "pull": ("gradserve_service.cli.runs", "pull", "service"),
    "checkpoint": ("gradserve_service.cli.checkpoints", "checkpoint", "service"),
    "restore": ("gradserve_service.cli.checkpoints", "restore", "service"),
    "inspect": ("gradserve_service.cli.inspecting", "inspect", "service"),
    "replay": ("gradserve_service.cli.replaying", "replay", "service"),
    "doctor": ("gradserve_service.cli.doctor", "doctor", "service"),
    "token": ("gradserve_service.cli.tokens", "token", "service"),
}


class Commands(TyperGroup):
    """Adds the commands of `ELSEWHERE` to those of this file."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, for --help."""
        return [*super().list_commands(ctx), *ELSEWHERE]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, None when there is none."""
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, function, extra = ELSEWHERE[cmd_name]
        try:
            command = getattr(import_module(module), function)
        except ModuleNotFoundError as error:
            fail(f"{cmd_name} needs {error.name}, which is not installed:\n  pip install 'gradserve[{extra}]'")
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(cmd_name)(command)
        return get_command(alone)


app = typer.Typer(
    name="gradserve",
    cls=Commands,
    help="Optimizer as a service: workers push gradients, Gradserve applies the optimizer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def flag(name: str, *declarations: str) -> Any:
    """The option of a setting: its text, its default and its variable come from `Settings`."""
    field = Settings.model_fields[name]
    default = f"{field.default}; " if field.default not in (None, False) else ""
    text = f"{field.description} ({default}${ENVIRONMENT_PREFIX}{name.upper()})"
    return typer.Option(*declarations, help=text, show_default=False)


@app.command(
    short_help="Run a server.",
    help="Run a server, until SIGTERM or Ctrl-C: it then refuses new gradients, finishes what is under way, leaves "
    "snapshots and exits 0. A flag wins over its variable. Rather set $GRADSERVE_TOKEN than --token: other users of "
    "this machine see a command's flags.",
)
def serve(
    host: Annotated[str | None, flag("host")] = None,
    port: Annotated[int | None, flag("port")] = None,
    uds: Annotated[Path | None, flag("uds")] = None,
    store: Annotated[str | None, flag("store")] = None,
    durability: Annotated[str | None, flag("durability")] = None,
    retain: Annotated[str | None, flag("retain")] = None,
    token: Annotated[str | None, flag("token")] = None,
    token_sha256: Annotated[str | None, flag("token_sha256")] = None,
    insecure: Annotated[bool | None, flag("insecure", "--insecure")] = None,
    log_level: Annotated[str | None, flag("log_level")] = None,
    log_format: Annotated[str | None, flag("log_format")] = None,
    drain_seconds: Annotated[float | None, flag("drain_seconds")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the start-up line as JSON.")] = False,
) -> None:
    """Run a server until a signal. The options are the settings, and nothing else is decided here."""
    from .serving import CannotServe, run_server

    try:
        settings = read_settings(
            host=host, port=port, uds=uds, store=store, durability=durability, retain=retain, token=token,
            token_sha256=token_sha256, insecure=insecure, log_level=log_level, log_format=log_format,
            drain_seconds=drain_seconds,
        )  # fmt: skip
        run_server(settings, announce=print_json if as_json else print_line)
    except (SettingsError, CannotServe) as error:
        fail(str(error))


@app.command()
def openapi(
    output: Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")] = None,
) -> None:
    """Print the OpenAPI document of the HTTP API."""
    from gradserve_service.http.app import create_app

    document = create_app(None, Settings.model_construct()).openapi()  # no one's environment is in it
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if output is None:
        sys.stdout.write(text)
        return
    with complaints_as_lines():
        output.write_text(text, encoding="utf-8")


@app.command()
def version() -> None:
    """Print the version."""
    print(f"gradserve {installed_version('gradserve')}")


def print_line(address: dict[str, Any]) -> None:
    """The start-up line for people."""
    print(
        f"gradserve {address['version']} serves {address['url']}  store {address['store']}  "
        f"durability {address['durability']}  docs {address['docs']}",
        flush=True,
    )
