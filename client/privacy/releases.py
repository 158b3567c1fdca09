"""Whatever left this client was charged: what was released or uploaded names an entry that is in an account.

If it is not, the account lost its end, or private state was put back to an earlier day: nothing more is released then.
"""

from client.privacy.entries import Entries
from client.privacy.ledger import ENTRY
from exchange import keys
from exchange.blocks import WeightFile, open_weights
from exchange.documents import sha256
from exchange.errors import InvalidTensorFile, LedgerError
from exchange.stores import Store


def check_releases(state: Store, entries: Entries | None = None) -> None:
    """Raise LedgerError if something was released whose entry is in no account: entries at its end were lost.

    The newest release of each federation is enough: entries are lost from the end first.

    Args:
        entries: of `state`, where they were read before.
    """
    files = [_newest(state, keys.releases(federation)) for federation in state.folders()]
    _check_named(entries or Entries(state), files)


def check_uploads(entries: Entries, parent: Store, federation: str, client: str) -> None:
    """Raise LedgerError if the client's newest upload was charged by an entry that is in no account.

    That is how private state shows that was put back to an earlier day: account and releases agree, and both are old.
    """
    _check_named(entries, [_newest(parent, keys.updates(federation, client))])


def _newest(store: Store, prefix: str) -> WeightFile | None:
    found = [info.key for info in store.list(prefix) if info.key.endswith(".safetensors")]
    try:
        return open_weights(store, found[-1]) if found else None
    except InvalidTensorFile:
        return None  # another tool's, and not sound: it names no entry


def _check_named(entries: Entries, files: list[WeightFile | None]) -> None:
    # The entries after the files: whoever releases something meanwhile has charged it before.
    known = {sha256(entry) for entry in entries.under(keys.LEDGERS).values()}
    for file in files:
        entry = file.layout.metadata.get(ENTRY) if file else None
        if file and entry is not None and entry not in known:
            raise LedgerError(
                f"{file.key} in {file.store.url} was released under the ledger entry {entry}, which is in no account; "
                "restore the account: nothing is released without it"
            )
