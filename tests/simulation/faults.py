"""The mixes of faults, by name. A mix says how often; the seed says when."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from random import Random
from typing import Literal

NEVER = 0.0
Kind = Literal["read", "write", "removal"]
KINDS: dict[Kind, tuple[str, ...]] = {"read": (), "write": ("ghost", "full"), "removal": ("ghost",)}


@dataclass(frozen=True, slots=True)
class Mix:
    """How often each fault comes. Shares are of 1, `…_seconds` are means between two of its kind."""

    # requests and answers
    request_lost: float = NEVER  # or so late that its client has given it up
    answer_lost: float = NEVER
    copied: float = NEVER  # the request arrives a second time, later, maybe at another server
    copy_seconds: float = 3.0  # how much later, at most
    other_server: float = 0.05  # the client goes elsewhere for no reason
    # the store's answers
    store_lost: float = NEVER
    store_unanswered: float = NEVER
    store_ghost: float = NEVER
    store_stall: float = NEVER
    stall_seconds: float = 4.0  # how long, at most
    store_full: float = NEVER
    outage_seconds: float = NEVER  # one server, or all, cannot reach the store for a while
    # the store's memory
    tail_seconds: float = NEVER
    tail_writes: int = 8  # how far back it may go
    tails_with_zombies: float = NEVER  # share of replaced processes that a lost tail goes with
    damage_seconds: float = NEVER  # the newest snapshot's image
    rot_seconds: float = NEVER  # a payload in the journal: the run may stop, loudly, but nobody may go on with it
    object_ttl_seconds: float = 30.0
    # servers
    kill_seconds: float = NEVER
    drained: float = 0.2  # share of restarts that are orderly
    pause_seconds: float = NEVER
    bits_flipped: float = NEVER  # a server gets one bit of the weights wrong, in an entry that it catches up with
    # workers
    worker_kill_seconds: float = NEVER
    zombies: float = 0.5  # share of killed workers that were only paused
    # people
    readers: int = 1
    people: int = 1  # who change things at the same time
    operator_seconds: float = NEVER
    delete_seconds: float = NEVER  # the run is deleted, and made anew by its workers
    guest_seconds: float = NEVER  # workers that come for a few items and leave for good
    batches: bool = False  # several pushes make an update, and their number is one of the settings that change
    script_guest_seconds: float = NEVER  # the same in curl; then the run keeps fewer rows than it has seen workers


NETWORK = Mix(request_lost=0.06, answer_lost=0.06, copied=0.12, other_server=0.1)
STORE = Mix(store_lost=0.03, store_unanswered=0.03, store_ghost=0.05, store_stall=0.01)
REWINDING = Mix(
    tail_seconds=2.5, tail_writes=16, worker_kill_seconds=2.0, zombies=0.7, operator_seconds=4.0, guest_seconds=3.0
)


def _mixed(*mixes: Mix, **more: float) -> Mix:
    """All of these faults, and more."""
    said = {part.name: getattr(mix, part.name) for mix in mixes for part in fields(Mix)
            if getattr(mix, part.name) != getattr(CALM, part.name)}  # fmt: skip
    return Mix(**{**said, **more})


CALM = Mix()
MIXES: dict[str, Mix] = {
    "calm": CALM,
    "network": _mixed(NETWORK, STORE, store_stall=NEVER),
    "kills": Mix(
        request_lost=0.02,
        answer_lost=0.02,
        copied=0.1,
        store_ghost=0.04,
        store_stall=0.02,
        kill_seconds=2.0,
        worker_kill_seconds=2.5,
        damage_seconds=2.0,
        operator_seconds=4.0,
    ),
    "lost-tail": _mixed(REWINDING, request_lost=0.03, copied=0.1, answer_lost=0.03, store_stall=0.02),
    "rewinds": _mixed(
        REWINDING,
        tail_seconds=0.8,
        tail_writes=6,
        worker_kill_seconds=1.5,
        zombies=0.9,
        tails_with_zombies=0.6,
        guest_seconds=0.6,
        store_stall=0.1,
        stall_seconds=0.5,
        request_lost=0.05,
        answer_lost=0.05,
        copied=0.15,
        other_server=0.2,
    ),
    "pauses": Mix(
        copied=0.1,
        store_stall=0.04,
        object_ttl_seconds=2.0,
        pause_seconds=1.2,
        worker_kill_seconds=2.0,
        zombies=1.0,
        operator_seconds=3.0,
    ),
    "store-full": _mixed(STORE, store_full=0.1, outage_seconds=2.0, copied=0.05),
    "slow-store": Mix(store_stall=0.4, stall_seconds=0.3, other_server=0.3, copied=0.05, readers=5),
    "ghosts": Mix(store_ghost=0.25, store_full=0.06, other_server=0.2, operator_seconds=0.5),
    "people": Mix(operator_seconds=0.7, copied=0.4, copy_seconds=2.0, answer_lost=0.05, store_stall=0.02),
    "back-and-forth": Mix(
        operator_seconds=0.5,
        people=3,
        copied=0.4,
        copy_seconds=4.0,
        answer_lost=0.02,
        store_stall=0.03,
        stall_seconds=0.5,
        kill_seconds=6.0,
        other_server=0.2,
    ),
    "batches": _mixed(
        REWINDING,
        batches=True,
        operator_seconds=1.5,
        kill_seconds=3.0,
        damage_seconds=5.0,
        copied=0.2,
        answer_lost=0.05,
        store_ghost=0.04,
        other_server=0.2,
    ),
    "crowd": Mix(script_guest_seconds=0.7, copied=0.3, copy_seconds=6.0, answer_lost=0.03),
    "recreate": Mix(
        delete_seconds=1.5,
        operator_seconds=2.0,
        request_lost=0.05,
        answer_lost=0.1,
        copied=0.6,
        copy_seconds=2.0,
        kill_seconds=6.0,
        store_ghost=0.2,
    ),
    "rot": Mix(rot_seconds=1.5, kill_seconds=3.0, other_server=0.3, answer_lost=0.03),
    "wrong-bits": Mix(bits_flipped=0.7, other_server=0.4, copied=0.05, readers=3, operator_seconds=4.0),
    "everything": _mixed(
        NETWORK,
        STORE,
        REWINDING,
        store_full=0.03,
        outage_seconds=6.0,
        kill_seconds=4.0,
        pause_seconds=3.0,
        damage_seconds=5.0,
        object_ttl_seconds=3.0,
    ),
}


@dataclass(slots=True)
class Faults:
    """The faults of one run: the mix, until it is over; and how many of each there were."""

    mix: Mix
    over: bool = False
    unreachable: dict[str, float] = field(default_factory=dict)  # server → outages under way
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, kind: str) -> None:
        """One more of that kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1

    def of_store(self, server: str, random: Random, kind: Kind) -> str | None:
        """What becomes of a store operation. A read that arrives late is a lost one; removals need no memory."""
        draw = random.random()
        if self.over:
            return None
        if self.unreachable.get(server):
            return "lost"
        kinds = ["lost", "unanswered", "stall", *KINDS[kind]]
        return self._drawn(draw, "store", kinds)

    def of_arithmetic(self, random: Random) -> bool:
        """Whether a server gets an entry wrong."""
        if self.over or self.mix.bits_flipped == NEVER or random.random() >= self.mix.bits_flipped:
            return False
        self.count("bits_flipped")
        return True

    def of_request(self, random: Random) -> str | None:
        """What becomes of a request or of its answer; a copy comes on top of the request itself."""
        draw = random.random()
        if self.over:
            return None
        for kind in ("request_lost", "answer_lost", "copied"):
            draw -= getattr(self.mix, kind)
            if draw < 0:
                self.count(kind)
                return kind
        return None

    def _drawn(self, draw: float, prefix: str, kinds: list[str]) -> str | None:
        for kind in kinds:
            draw -= getattr(self.mix, f"{prefix}_{kind}")
            if draw < 0:
                self.count(f"{prefix}_{kind}")
                return kind
        return None
