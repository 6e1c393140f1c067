"""Every limit of a server: a name, a unit, a reason."""

from __future__ import annotations

from dataclasses import dataclass

from .store.records import INLINE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one server holds and waits for."""

    body_bytes_max: int = 8 << 30  # one request body: 2 G float32 parameters
    bodies_bytes_max: int = 8 << 30  # all bodies and queued pushes of the server together; past it 429
    states_bytes_max: int = 8 << 30  # weights and slots in memory; past it the runs asked for longest ago are dropped
    # Waiting pushes of one run. The queue is fair, coming again after a refusal is not: who was just answered finds the
    # place that it left, who comes a second later finds none. So crowds wait; large bodies meet their own limit first.
    queue_pushes_max: int = 4_096
    retry_after_seconds_max: int = 60  # the longest that a full queue sends anybody away for
    inline_payload_bytes_max: int = INLINE_BYTES_MAX  # up to here a payload rides inside its entry: one round trip
    inline_parameters_max: int = 65_536  # up to here an update runs on the event loop: a thread hop costs 100 µs
    wait_seconds_max: float = 60.0  # a long-poll's longest wait: proxies cut idle connections near here
    batch_entries_max: int = 64  # entries in one append: one script call must not hold Redis for long
    snapshot_journal_bytes_min: int = 64 << 20  # journal between snapshots, at least: small runs need few
    snapshot_state_factor: int = 4  # … and at least this many times the state: writing it must stay a small share
    snapshot_store_share: float = 0.25  # of the store's memory: journal and two images must fit below its 70 %
    catch_up_entries: int = 256  # entries a read while catching up or restoring
    decide_again_max: int = 64  # lost races in a row before a push is told to come again
    crashes_max: int = 3  # failures in a row before the run is quarantined
    quarantine_seconds_min: float = 1.0  # then it is tried again after this long, and after twice as long each time …
    quarantine_seconds_max: float = 60.0  # … up to this: a replay that fails again must stay a small share of the time
    store_memory_share_relief: float = 0.5  # of the store's memory: above it runs leave snapshots before they are due
    store_memory_share_max: float = 0.7  # of the store's memory limit: above it pushes get 429
    receive_rate_bytes_min: int = 64 << 10  # a second, after the grace: home and spot uplinks are users
    receive_grace_seconds: float = 30.0
    json_bytes_max: int = 8 << 20  # a JSON body: 65,536 numbers at their longest, with room
    request_head_bytes_max: int = 64 << 10  # path and headers: eight times what proxies usually let through
    request_head_seconds_max: float = 30.0  # from the first byte, or from the connection, to the last header
    idle_connection_seconds: int = 620  # longer than a worker's longest gradient is likely to take
    lease_seconds: float = 30.0  # how often a silent worker should say that it is still there
    waiting_requests_max: int = 4_096  # long-polls at once
