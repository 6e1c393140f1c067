"""Floor 6: the `gradserve` command. Imported by machines that have only the SDK, so nothing is imported at its head."""

from __future__ import annotations

import sys

__all__ = ["main"]

OURS = ("gradserve", "gradserve_service")


def main() -> None:
    """Run the command line; without the `service` extra, say how to install it and exit 2."""
    try:
        from .commands import app

        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in OURS:
            raise  # a part of this very package is gone: no extra cures that
        print(
            f"gradserve: this command needs the server's packages ({missing} is not installed):\n"
            "  pip install 'gradserve[service]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
