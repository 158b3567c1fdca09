"""The entries of a client's privacy accounts, as they lie in its private state."""

from concurrent.futures import ThreadPoolExecutor

from exchange.stores import Store

_MANY = 32  # entries from which on several are read at a time: one after the other, 500 take half a minute
_READERS = 8


class Entries:
    """The entries of all accounts in a private state; each version of one is read once, several at a time."""

    def __init__(self, state: Store) -> None:
        self._state = state
        self._known: dict[tuple[str, str], bytes] = {}

    def under(self, prefix: str) -> dict[str, bytes]:
        """Return what lies under `prefix` now, by key and in order."""
        found = [(info.key, info.version) for info in self._state.list(prefix)]
        unknown = [entry for entry in found if entry not in self._known]
        if len(unknown) < _MANY:
            self._known |= {entry: self._state.read(*entry) for entry in unknown}
        else:
            with ThreadPoolExecutor(_READERS) as pool:
                self._known |= zip(unknown, pool.map(lambda entry: self._state.read(*entry), unknown), strict=True)
        return {key: self._known[key, version] for key, version in found}
