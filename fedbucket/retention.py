"""Retention: the only command that removes anything from a bucket.

It removes updates of closed rounds and nothing else: models, cohorts, summaries and receipts stay, and so do the few
bytes of a withdrawal. What it is about to remove of a round it writes down first, create-only, in
`rounds/R/pruned.json`; interrupted, it goes on with what that says. It stands here and not beside the handlers, so that
nothing that is deployed can remove.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress

from exchange import keys
from exchange.blocks import digest_object
from exchange.errors import AlreadyExists, NotFound
from exchange.records import Cohort, Pruned, RemovedUpdate, StoredUpdate
from exchange.stores import ObjectInfo, PrunableStore, Store, exists


def removable(store: Store, federation: str, before: int) -> dict[int, list[ObjectInfo]]:
    """Return, by round, the updates of closed rounds below `before`: those whose next model is there.

    Until the run is finished, a round that holds a client's newest update is left out: by that a client notices that
    its private account was set back to an earlier day. Of a round with a `pruned.json`, only what that names: an update
    that came later was looked at by nobody, and stays.
    """
    found: defaultdict[int, list[ObjectInfo]] = defaultdict(list)
    newest: dict[str, int] = {}
    for info in store.list(keys.all_updates(federation)):
        match keys.parse(info.key):
            case keys.Update(_, client, round_, withdrawn=False):
                found[round_].append(info)
                newest[client] = max(round_, newest.get(client, 0))
    kept = set() if exists(store, str(keys.Finished(federation))) else set(newest.values())
    models = {keys.parse(info.key) for info in store.list(keys.models(federation))}
    closed = [round_ for round_ in sorted(found) if round_ < before and keys.Model(federation, round_ + 1) in models]
    named = {round_: _named(store, federation, round_, found[round_]) for round_ in closed if round_ not in kept}
    return {round_: updates for round_, updates in named.items() if updates}


def prune(store: PrunableStore, federation: str, round_: int, updates: Sequence[ObjectInfo]) -> None:
    """Remove updates of a closed round, as `removable` found them; first write down which.

    Raises:
        NotFound: the round has no cohort; nothing was removed.
    """
    if read_pruned(store, federation, round_) is None:
        record = _record(store, federation, round_, updates)
        with suppress(AlreadyExists):  # another operator's: the first stands
            store.create(str(keys.Pruned(federation, round_)), record.to_bytes())
    for update in _named(store, federation, round_, updates):
        store.remove(update.key)


def read_pruned(store: Store, federation: str, round_: int) -> Pruned | None:
    """Return what was removed of a round; None if nothing was."""
    key = str(keys.Pruned(federation, round_))
    try:
        return Pruned.from_bytes(store.read(key), key)
    except NotFound:
        return None


def _named(store: Store, federation: str, round_: int, updates: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    record = read_pruned(store, federation, round_)
    names = {removed.key for removed in record.removed} if record else {update.key for update in updates}
    return [update for update in updates if update.key in names]


def _record(store: Store, federation: str, round_: int, updates: Sequence[ObjectInfo]) -> Pruned:
    key = str(keys.Cohort(federation, round_))
    members = {member.key: member for member in Cohort.from_bytes(store.read(key), key).members}
    removed = tuple(
        RemovedUpdate(key=update.key, size=update.size, sha256=_digest(store, update, members)) for update in updates
    )
    return Pruned(federation=federation, round=round_, removed=removed)


def _digest(store: Store, update: ObjectInfo, members: Mapping[str, StoredUpdate]) -> str:
    member = members.get(update.key)
    if member is not None and member.version == update.version:
        return member.sha256  # of this very version, computed when it was recorded: not read a second time
    return digest_object(store, update.key, update.version, update.size)
