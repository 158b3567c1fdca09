"""What one instance of the parent's functions remembers between two events, so that it reads nothing twice."""

from collections.abc import Callable
from typing import Any, TypeVar

_MOST = 10_000  # objects: most are receipts, which take some ten megabytes together
_T = TypeVar("_T")


class Known:
    """What was read of objects, by bucket, key and version: what one version says never changes.

    To forget costs reads, and nothing else: no result depends on what is known.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Any] = {}

    def find(self, url: str, key: str, version: str, read: Callable[[], _T]) -> _T:
        """Return what `read` returned for this version when it was first asked; it is always of one type for a key."""
        place = (url, key, version)
        if place not in self._found:
            found = read()
            if len(self._found) >= _MOST:
                self._found.clear()
            self._found[place] = found
            return found
        known: _T = self._found[place]
        return known
