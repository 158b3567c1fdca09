"""What a bucket must do for us, and no more.

Every key is written once. There is no overwrite, and for those who are handed a `Store` no removal; "already there" is
an answer, not a fault. A key is one or more names of letters, digits, `.`, `_` and `-`, joined by `/`; no name begins
with a dot. What stands in a bucket under any other name (a console's folder markers, a file manager's notes) is none of
ours and is not listed.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

READ_LIMIT = 64 * 2**20  # bytes that read() takes into memory unless told otherwise: far above any JSON object of ours
_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}"  # no file system takes a longer one
_KEY = re.compile(rf"(?:{_NAME}/)*{_NAME}", re.ASCII)
_PREFIX = re.compile(rf"(?:{_NAME}/)*(?:{_NAME})?", re.ASCII)
_MAX_KEY = 512  # characters; all stores take as many


@dataclass(frozen=True)
class ObjectInfo:
    """One object as its store knows it.

    Attributes:
        key: its name in the bucket.
        size: bytes.
        version: changes whenever the object is replaced; means something to this store only.
        created, now: seconds since 1970, both by the *store's* clock; `now` may be in whole seconds.
    """

    key: str
    size: int
    version: str
    created: float
    now: float

    @property
    def age(self) -> float:
        """Seconds since its creation, by the store's clock; may fall short of the truth by a second."""
        return max(0.0, self.now - self.created)


class Writer(Protocol):
    """Takes the bytes of one object, in order."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object:
        """Append `data`."""


class Store(Protocol):
    """A bucket. Every method may also raise StoreUnavailable, and ValueError for what is not a key."""

    url: str

    def create(self, key: str, data: bytes) -> str:
        """Create an object, whole or not at all, and return its version.

        Raises:
            AlreadyExists: the key is taken. Of any number of concurrent calls for a key exactly one succeeds.
        """

    def read(self, key: str, version: str | None = None, limit: int = READ_LIMIT) -> bytes:
        """Return the object, of that version if one is given.

        Raises:
            NotFound: no such object.
            VersionMismatch: it is another version now.
            ObjectTooLarge: it has more than `limit` bytes.
        """

    def stat(self, key: str) -> ObjectInfo:
        """Return what the store knows of the object; raises NotFound."""

    def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
        """Fill `buffer` (writable bytes) with the object's bytes from `offset`.

        Raises:
            NotFound, VersionMismatch: as `read`.
            StoreError: the object ends before the buffer is full.
        """

    def writer(self, key: str, size: int) -> AbstractContextManager[Writer]:
        """Stream an object of `size` bytes, create-only.

        It becomes visible, whole, when the context ends without an exception, and never otherwise.

        Raises:
            AlreadyExists: at the end of the context (or before): the key is taken.
            StoreError: at the end of the context: not exactly `size` bytes were written.
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with `prefix`, the beginning of a key or '', sorted by key."""

    def folders(self) -> Iterator[str]:
        """Yield, sorted, the first names of all keys that have more than one: here, the federations in a bucket."""


class PrunableStore(Store, Protocol):
    """A bucket from which the retention command may remove; no handler is ever handed one."""

    def remove(self, key: str) -> None:
        """Remove the object; that it is not there, or no longer, is as good."""


def is_key(text: str) -> bool:
    """Return whether `text` can be the key of an object of ours."""
    return len(text) <= _MAX_KEY and _KEY.fullmatch(text) is not None


def check_key(key: str) -> str:
    """Return `key`; raises ValueError if it is none."""
    if not is_key(key):
        raise ValueError(f"not a key: {key[:100]!r}; expected names of letters, digits, '.', '_', '-', joined by '/'")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix`; raises ValueError if no key begins so."""
    if len(prefix) > _MAX_KEY or not _PREFIX.fullmatch(prefix):
        raise ValueError(f"not the beginning of a key: {prefix[:100]!r}")
    return prefix
