"""`memory://`: a bucket in this process, for tests and simulations; the shortest reading of the protocol."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from exchange.errors import AlreadyExists, NotFound, ObjectTooLarge, StoreError, VersionMismatch
from exchange.stores.protocol import READ_LIMIT, ObjectInfo, Writer, check_key, check_prefix, is_key


@dataclass(frozen=True)
class _Object:
    data: bytes
    version: str
    created: float


class MemoryStore:
    """A bucket in this process.

    Args:
        clock: returns seconds since 1970; the store's clock.
    """

    def __init__(self, clock: Callable[[], float], url: str = "memory://") -> None:
        self.url = url
        self._clock = clock
        self._objects: dict[str, _Object] = {}
        self._versions = 0
        self._lock = Lock()

    def create(self, key: str, data: bytes) -> str:
        with self._lock:
            if check_key(key) in self._objects:
                raise AlreadyExists(key)
            return self._put(key, data)

    def replace(self, key: str, data: bytes) -> None:
        """Do what the protocol forbids: tests of pinned reads need a replaced object."""
        with self._lock:
            self._put(key, data)

    def read(self, key: str, version: str | None = None, limit: int = READ_LIMIT) -> bytes:
        found = self._get(key, version)
        if len(found.data) > limit:
            raise ObjectTooLarge(f"{key}: {len(found.data)} bytes, the limit is {limit}")
        return found.data

    def stat(self, key: str) -> ObjectInfo:
        return self._info(key, self._get(key, None))

    def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
        data = self._get(key, version).data
        if offset + len(buffer) > len(data):
            raise StoreError(f"{key}: bytes {offset}…{offset + len(buffer)} asked for, it has {len(data)}")
        buffer[:] = memoryview(data)[offset : offset + len(buffer)]

    @contextmanager
    def writer(self, key: str, size: int) -> Iterator[Writer]:
        check_key(key)
        out = _Bytes()
        yield out
        if len(out) != size:
            raise StoreError(f"{key}: {size} bytes announced, {len(out)} written")
        self.create(key, bytes(out))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._lock:
            found = sorted((key, at) for key, at in self._objects.items() if key.startswith(prefix) and is_key(key))
        yield from (self._info(key, stored) for key, stored in found)

    def folders(self) -> Iterator[str]:
        with self._lock:
            names = {key.partition("/")[0] for key in self._objects if "/" in key and is_key(key)}
        yield from sorted(names)

    def remove(self, key: str) -> None:
        with self._lock:
            self._objects.pop(check_key(key), None)

    def _put(self, key: str, data: bytes) -> str:
        self._versions += 1
        self._objects[key] = _Object(bytes(data), str(self._versions), self._clock())
        return str(self._versions)

    def _get(self, key: str, version: str | None) -> _Object:
        with self._lock:
            if (found := self._objects.get(check_key(key))) is None:
                raise NotFound(key)
        if version not in (None, found.version):
            raise VersionMismatch(f"{key}: version {version} asked for, it is {found.version} now")
        return found

    def _info(self, key: str, stored: _Object) -> ObjectInfo:
        return ObjectInfo(key, len(stored.data), stored.version, stored.created, self._clock())


class _Bytes(bytearray):
    write = bytearray.extend
