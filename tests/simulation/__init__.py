"""The seeded simulation: real servers, real SDK flows, a store and a network that misbehave, and virtual time.

    loop.py        an event loop with virtual time; programs on it can be killed and paused
    disk.py        what the store really holds; archive.py: every entry that ever was on it, and what replay makes of it
    store.py       one server's connection to the disk, with its faults
    servers.py     the real `Replicas` behind the real app; network.py: requests and answers, and what becomes of them,
                   the SDK's choice among servers included; streams.py: answers that go on
    workers.py     the SDK's sessions; scripts.py: workers written in curl
    operators.py   people who change settings and weights, report, keep states and go back to them
    readers.py     who looks on, and who watches
    ledger.py      what clients asked, were told and were promised
    faults.py      the mixes of faults by name; hands.py: who does them
    invariants.py  what must hold, one function a sentence; answers.py: of every single answer; states.py: of kept and
                   restored states; records.py: of history, statistics, journal and events
    protections.py every protection; switches.py, switches_of_rules.py, switches_of_states.py: how each is switched off
    world.py       one seed, one run, one report

`python scripts/simulate.py` runs many of them, or the table of protections. What is not modelled: a split brain of the
store (a server that goes on with an old primary), a store that is wholly lost, chunks of one object that vanish one by
one, power loss of a single file (SQLite), threads, sockets and slow bodies, runs too large for one piece, several runs
in one server.

One integer decides everything: the same seed and mix give the same run, to the last event.
"""
