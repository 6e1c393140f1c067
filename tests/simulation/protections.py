"""Every protection, and how it is switched off.

A protection that can be switched off without anything failing is either not needed or not tested. `PROTECTIONS` gives
for each the mix that hurts it and how many seeds may pass before one of them fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from . import switches, switches_of_rules, switches_of_states
from .world import Report, simulate

SEEDS_MAX = 150  # within which a switched-off protection has to be missed


@dataclass(frozen=True, slots=True)
class Protection:
    """What is promised, how it is broken, and where that shows."""

    name: str
    off: Callable[[], contextlib.AbstractContextManager[object]]
    mix: str
    seed: int  # the first of this mix that fails without it

    def first_failure(self, start: int = 0, seeds: int = SEEDS_MAX) -> Report | None:
        """The first run that fails without the protection; None when nobody misses it."""
        with self.off():
            for seed in range(start, start + seeds):
                report = simulate(seed, self.mix)
                if report.violations:
                    return report
        return None


def _row(name: str, off: Callable[[], contextlib.AbstractContextManager[object]], mix: str, seed: int) -> Protection:
    return Protection(name, off, mix, seed)


def _disk(**checks: bool) -> Callable[[], contextlib.AbstractContextManager[object]]:
    return partial(switches.disk_checks, **checks)


PROTECTIONS: tuple[Protection, ...] = (
    # the rules
    _row("a repeated push is recognised", switches_of_rules.no_duplicates, "network", 0),
    _row("a sequence names one gradient", switches_of_rules.any_digest, "network", 4),
    _row("receipts (after)", switches_of_rules.no_receipts, "rewinds", 1),
    _row("generations are compared", switches_of_rules.no_generations, "pauses", 0),
    _row("superseded instances are remembered", switches_of_rules.no_superseded, "kills", 20),
    _row("the same instance again is a heartbeat", switches_of_rules.always_join, "kills", 0),
    _row("the base ETag is compared", switches_of_rules.no_base_etag, "rewinds", 2),
    _row("an ETag has a part of the hash", switches_of_rules.etag_is_version, "lost-tail", 0),
    _row("leaving is checked as a push is", switches_of_rules.leave_unchecked, "rewinds", 2),
    _row("new weights raise base_floor", switches_of_rules.no_floor_after_load, "people", 0),
    _row("a forgotten row raises base_floor", switches_of_rules.no_floor_after_forgetting, "crowd", 0),
    _row("idempotency keys", switches_of_rules.no_keys, "people", 4),
    _row("the first weights win on the chain", switches_of_rules.loads_without_condition, "people", 5),
    _row("a change without a key gets one", switches_of_rules.no_key_of_its_own, "ghosts", 1),
    # kept states and changes
    _row("a restore raises base_floor", switches_of_states.no_floor_after_restore, "back-and-forth", 0),
    _row("a restore brings the step", switches_of_states.step_stays, "back-and-forth", 0),
    _row("a restore is known by its key", switches_of_states.restores_again, "back-and-forth", 0),
    _row("a report is known by its key", switches_of_states.reports_again, "people", 1),
    _row("a key belongs to one operation", switches_of_states.keys_of_any_operation, "people", 7),
    _row("a checkpoint stays what it is", switches_of_states.checkpoints_replaced, "back-and-forth", 0),
    _row("a checkpoint copies the slots", switches_of_states.share_slots_of_checkpoints, "back-and-forth", 157),
    _row("a branch is begun once", switches_of_states.branches_again, "back-and-forth", 0),
    _row("a closed run stays closed", switches_of_states.closing_is_a_pause, "people", 0),
    _row("samples are counted", switches_of_states.samples_of_one, "calm", 0),
    _row("a snapshot copies the sum of a batch", switches_of_states.share_sum_of_snapshots, "batches", 1),
    _row("new weights leave nothing of a batch", switches_of_states.batch_outlives_weights, "batches", 0),
    # who looks on
    _row("an image holds the history", switches_of_states.no_history_in_images, "kills", 0),
    _row("who watches is told of other servers", switches_of_states.watch_own_entries_only, "network", 17),
    _row("a watcher is told of a gap", switches_of_states.no_gaps_told, "kills", 6),
    _row("figures are told with their own entry", switches_of_states.figures_of_any_history, "rewinds", 40),
    _row("a feed ends with its history", switches_of_states.feed_goes_on, "rewinds", 0),
    # which run
    _row("a change names its run by uid", switches_of_rules.no_run_guard, "recreate", 0),
    _row("delete compares the uid", _disk(delete_uid=False), "recreate", 12),
    _row("create keeps a living run", _disk(name_is_free=False), "network", 0),
    # the run's task
    _row("append compares the head", _disk(head_hash=False, head_position=False), "network", 0),
    _row("append compares hashes, not positions", _disk(head_hash=False), "rewinds", 4),
    _row("append checks that objects are complete", _disk(objects_complete=False), "pauses", 1),
    _row("a lost reply is looked up, not appended again", switches.append_again, "network", 1),
    _row("append comes before the answer", switches.answer_first, "network", 0),
    _row("tentative state is adopted after the append", switches.adopt_first, "network", 0),
    _row("answers without an append check the head", switches.no_head_check, "network", 0),
    _row("reads check the head", switches.no_fresh_reads, "network", 0),
    _row("a head read starts after its request", switches.old_head_reads, "slow-store", 8),
    _row("a state of a lost history is dropped", switches.keep_lost_state, "lost-tail", 0),
    # snapshots and recovery
    _row("what is read must continue the chain", switches.unchecked_reads, "everything", 1),
    _row("an image's digest is verified", switches.no_image_digest, "kills", 0),
    _row("a payload's digest is verified", switches.no_payload_digest, "rot", 0),
    _row("a bad image falls back to the one before", switches.newest_image_only, "kills", 0),
    _row("a snapshot copies the slots", switches.share_slots, "calm", 0),
    _row("states are compared where snapshots are due", switches.no_comparison, "wrong-bits", 1),
    _row("publish compares the newest snapshot", _disk(publish_expected=False), "slow-store", 8),
    _row("publish compares the hash", _disk(publish_hash=False), "rewinds", 2),
    _row("trim stops at the previous snapshot", _disk(trim_to_previous=False), "kills", 0),
    # the SDK
    _row("a rewound worker drops its gradient", switches.resend_rewound, "rewinds", 0),
)
