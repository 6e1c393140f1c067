"""A child program on a leash: `python -m gradserve_service.demo.leashed PIPE MODULE [words…]`.

It runs the module as `python -m` would. PIPE is the number of an inherited pipe whose other end the parent alone
holds and never writes to: its end is the parent's, however that came. A parent that ends in order has ended its
children before; this is for the one that was killed, and could not.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

__all__ = ["main"]

LAST_SECONDS = 15.0  # a draining server writes a snapshot first


def main(pipe: int, module: str) -> None:
    """Run the module in this program; end it, and all that it started, when the pipe ends."""
    threading.Thread(target=_watch, args=(pipe,), name="leash", daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _watch(pipe: int) -> None:
    """Wait for the parent's end; then ask, and after a while end by force. The group is this program's own."""
    os.read(pipe, 1)
    os.killpg(0, signal.SIGTERM)
    threading.Event().wait(LAST_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    number, name = int(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    main(number, name)
