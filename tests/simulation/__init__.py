"""The seeded simulation: real servers, real SDK flows, a store and a network that misbehave, and virtual time.

    loop.py        an event loop with virtual time; programs on it can be killed and paused
    disk.py        what the store really holds; archive.py: every entry that ever was on it, and what replay makes of it
    store.py       one server's connection to the disk, with its faults
    servers.py     the real `Replicas` behind the real app; network.py: requests and answers, and what becomes of them
    workers.py     the SDK's sessions; scripts.py: workers written in curl; operator.py: settings and new weights
    ledger.py      what clients asked, were told and were promised
    faults.py      the mixes of faults by name, and the hand that does them
    invariants.py  what must hold, one function a sentence
    protections.py every protection with its switch
    world.py       one seed, one run, one report

One integer decides everything: the same seed and mix give the same run, to the last event.
"""
