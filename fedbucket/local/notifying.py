"""A store that tells of every object created in it, as a bucket's notifications do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from exchange.stores import READ_LIMIT, ObjectInfo, Store, Writer


class NotifyingStore:
    """`inner`, telling `created` the key of each new object."""

    def __init__(self, inner: Store, created: Callable[[str], None]) -> None:
        self.url = inner.url
        self._inner = inner
        self._created = created

    def create(self, key: str, data: bytes) -> str:
        version = self._inner.create(key, data)
        self._created(key)
        return version

    @contextmanager
    def writer(self, key: str, size: int) -> Iterator[Writer]:
        with self._inner.writer(key, size) as out:
            yield out
        self._created(key)

    def read(self, key: str, version: str | None = None, limit: int = READ_LIMIT) -> bytes:
        return self._inner.read(key, version, limit)

    def stat(self, key: str) -> ObjectInfo:
        return self._inner.stat(key)

    def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
        self._inner.read_into(key, offset, buffer, version)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._inner.list(prefix)

    def folders(self) -> Iterator[str]:
        return self._inner.folders()
