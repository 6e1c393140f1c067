"""Does what Redis holds of runs agree with itself? Beside the chain: lists, marks, and what entries name."""

from __future__ import annotations

from .protocols import StoreDamaged
from .reading import told
from .records import CatalogueRecord
from .redis_keys import CATALOGUE, NAMES, catalogue_record, entry_record, journal_key, objects_key, run_key
from .redis_link import Link

STEP = 256  # entries or names a question


async def complaints(link: Link) -> list[str]:
    """Each contradiction with its place."""
    found: list[str] = []
    kept = await link.call("HGETALL", CATALOGUE)
    living: dict[bytes, CatalogueRecord] = {}
    for name, text in zip(kept[::2], kept[1::2], strict=True):
        try:
            record = catalogue_record(told(name), text)
        except StoreDamaged as damage:
            found.append(str(damage))
            continue
        if not record.deleted:
            living[name] = record
    listed = set(await link.call("ZRANGE", NAMES, "0", "-1"))
    for name in sorted(listed ^ living.keys()):
        where = "is listed and not in the catalogue" if name in listed else "is in the catalogue and not listed"
        found.append(f"the name {name!r} {where}")
    for name, record in sorted(living.items()):
        found += [f"run {name!r}: {text}" for text in await _of_run(link, record)]
    return found


async def _of_run(link: Link, run: CatalogueRecord) -> list[str]:
    """The run's own keys."""
    genesis, trimmed, previous, deleted = await link.call(
        "HMGET", run_key(run.uid), "genesis", "trimmed", "previous", "deleted"
    )
    if deleted is not None:
        return ["it is marked deleted, and its name still stands for it"]
    found = [] if genesis == run.genesis else ["its genesis hash is not the one of its name"]
    first = await link.call("XRANGE", journal_key(run.uid), "-", "+", "COUNT", "1")
    begins = 0 if not first else int(first[0][0][:-2]) - 1
    if trimmed is not None and trimmed != b"%d" % begins:
        found.append(f"the journal was trimmed up to {trimmed.decode('ascii', 'replace')}, it begins behind {begins}")
    if previous is None and trimmed is not None:
        found.append("its journal was trimmed, and there is no snapshot to fall back to")
    return found + await _objects(link, run.uid)


async def _objects(link: Link, uid: str) -> list[str]:
    """The objects that entries name, against the list that trimming goes by."""
    named: dict[bytes, bytes] = {}
    after = b"-"
    while step := await link.call("XRANGE", journal_key(uid), after, "+", "COUNT", str(STEP)):
        for entry in step:
            try:
                record = entry_record(entry)
            except StoreDamaged:
                continue  # told where the journal is read
            if record.object is not None:
                named[str(record.object).encode()] = b"%d" % record.position
        after = b"(" + step[-1][0]
    reply = await link.call("ZRANGE", objects_key(uid), "0", "-1", "WITHSCORES")
    listed = dict(zip(reply[::2], reply[1::2], strict=True))
    differing = {ref for ref in named.keys() | listed.keys() if named.get(ref) != listed.get(ref)}
    return [f"the list of objects is wrong about {ref!r}" for ref in sorted(differing)]
