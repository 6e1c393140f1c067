"""`gradserve serve` with limits so small that snapshots and trimming happen all the time: `python -m
faults.small_snapshots serve …`, or whenever the journal has grown by $SNAPSHOT_BYTES. All else is the command's own."""

from __future__ import annotations

import os

from gradserve_service.cli import main
from gradserve_service.limits import Limits
from gradserve_service.settings import Settings

LIMITS = Limits(snapshot_journal_bytes_min=int(os.environ.get("SNAPSHOT_BYTES", "1")), snapshot_state_factor=1)

if __name__ == "__main__":
    Settings.limits = property(lambda _: LIMITS)
    main()
