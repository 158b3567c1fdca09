"""What the buckets of all clouds share: a backend says how to put, find, fetch and list; here the promises are kept.

An SDK's own retries are off, ours are the only ones: so it is known when an answer was lost.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypeVar

from exchange.errors import AlreadyExists, NotFound, ObjectTooLarge, StoreError, StoreUnavailable, VersionMismatch
from exchange.stores.parts import PART, Parts, Ranged, Upload, fill
from exchange.stores.patience import Fault, failure, patiently
from exchange.stores.protocol import READ_LIMIT, ObjectInfo, Writer, check_key, check_prefix, is_key

_T = TypeVar("_T")


@dataclass(frozen=True)
class Entry:
    """An object by its full name; `mark` is the random word that its creator left in its metadata."""

    name: str
    size: int
    version: str
    created: float
    now: float
    mark: str = ""


@dataclass(frozen=True)
class Page:
    """A part of a listing; `token` asks for the next one, if there is one."""

    entries: list[Entry]
    folders: list[str]
    token: str | None


class CloudStore(ABC):
    """A bucket behind an SDK.

    Attributes:
        taken: the statuses and words by which the store says that a precondition does not hold.
        faults: the errors that its SDK raises.
        single: bytes up to which a streamed object is held in memory and sent as one request.
    """

    taken: ClassVar[Set[int | str]]
    faults: ClassVar[tuple[type[Exception], ...]]
    single: ClassVar[int] = PART

    def __init__(self, url: str, prefix: str) -> None:
        self.url = f"{url}/{prefix}" if prefix else url
        self._root = f"{check_key(prefix)}/" if prefix else ""

    @abstractmethod
    def _fault(self, error: Exception) -> Fault: ...

    @abstractmethod
    def _put(self, name: str, data: bytes, mark: str) -> str: ...

    @abstractmethod
    def _head(self, name: str) -> Entry: ...

    @abstractmethod
    def _range(self, name: str, wanted: str, version: str | None) -> AbstractContextManager[Ranged]: ...

    @abstractmethod
    def _page(self, prefix: str, delimiter: str, token: str | None) -> Page: ...

    @abstractmethod
    def _remove(self, name: str) -> object: ...

    @abstractmethod
    def _upload(self, name: str, size: int, mark: str) -> Upload: ...

    def create(self, key: str, data: bytes) -> str:
        name, mark = self._name(key), uuid.uuid4().hex
        return self._decide(key, mark, lambda: self._put(name, bytes(data), mark)) or self.stat(key).version

    def read(self, key: str, version: str | None = None, limit: int = READ_LIMIT) -> bytes:
        info = self._pinned(key, version)
        if info.size > limit:
            raise ObjectTooLarge(f"{key} in {self.url}: {info.size} bytes, the limit is {limit}")
        data = bytearray(info.size)
        self.read_into(key, 0, memoryview(data), info.version)
        return bytes(data)

    def stat(self, key: str) -> ObjectInfo:
        return self._info(self._ask(key, partial(self._head, self._name(key))))

    def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
        if len(buffer):
            self._fill(key, offset, buffer, version)
        else:
            self._pinned(key, version)

    @contextmanager
    def writer(self, key: str, size: int) -> Iterator[Writer]:
        name, mark = self._name(key), uuid.uuid4().hex
        if size <= self.single:
            yield (out := Parts(size))
            self.create(key, out.finish(f"{key} in {self.url}"))
            return
        upload = self._ask(key, lambda: self._upload(name, size, mark), AlreadyExists)
        try:
            yield (out := Parts(size, lambda part: self._decide(key, mark, lambda: upload.send(part))))
            last = out.finish(f"{key} in {self.url}")
            self._decide(key, mark, lambda: upload.send(last))
            self._decide(key, mark, upload.finish)
        except BaseException:
            with suppress(StoreError):
                self._ask(key, upload.abort)
            raise

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        # Sorted here: an Azure account with a hierarchical namespace has an order of its own.
        yield from sorted(self._listed(check_prefix(prefix)), key=lambda info: info.key)

    def folders(self) -> Iterator[str]:
        names = {self._key(folder).rstrip("/") for page in self._pages(self._root, "/") for folder in page.folders}
        for name in sorted(filter(is_key, names)):
            if next(self._listed(f"{name}/"), None):
                yield name

    def remove(self, key: str) -> None:
        with suppress(NotFound):  # also by us, where the answer was lost
            self._ask(key, partial(self._remove, self._name(key)))

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        for page in self._pages(self._root + prefix, ""):
            yield from (info for info in map(self._info, page.entries) if is_key(info.key))

    def _pages(self, prefix: str, delimiter: str) -> Iterator[Page]:
        page: Page | None = None
        while page is None or page.token:
            page = self._ask(prefix, partial(self._page, prefix, delimiter, page.token if page else None))
            yield page

    def _name(self, key: str) -> str:
        return self._root + check_key(key)

    def _key(self, name: str) -> str:
        return name.removeprefix(self._root)

    def _info(self, each: Entry) -> ObjectInfo:
        return ObjectInfo(self._key(each.name), each.size, each.version, each.created, each.now)

    def _pinned(self, key: str, version: str | None) -> ObjectInfo:
        info = self.stat(key)
        if version not in (None, info.version):
            raise VersionMismatch(f"{key} in {self.url}: version {version} asked for, it is {info.version} now")
        return info

    def _fill(self, key: str, offset: int, buffer: memoryview, version: str | None) -> None:
        try:
            count = self._ask(key, partial(self._fetch, key, offset, buffer, version))
        except VersionMismatch:
            self._pinned(key, version)  # tells which version it is now, or that it is gone
            raise
        if count != len(buffer):
            raise StoreError(f"{key} in {self.url}: ends before byte {offset + len(buffer)}")

    def _fetch(self, key: str, offset: int, buffer: memoryview, version: str | None) -> int:
        wanted = f"{offset}-{offset + len(buffer) - 1}"
        with self._range(self._name(key), f"bytes={wanted}", version) as came:
            return fill(buffer, offset, came, f"bytes {wanted} of {key} in {self.url}")

    def _ask(self, key: str, call: Callable[[], _T], taken: type[StoreError] = VersionMismatch) -> _T:
        return patiently(lambda: self._try(key, call, taken))

    def _try(self, key: str, call: Callable[[], _T], taken: type[StoreError]) -> _T:
        try:
            return call()
        except self.faults as error:
            failed = failure(f"{key} in {self.url}" if key else self.url, self._fault(error), taken, self.taken)
        raise failed  # outside the handler, without the SDK's error: its text may hold a signed URL

    def _decide(self, key: str, mark: str, call: Callable[[], _T]) -> _T | None:
        """Call what creates the object; return None if that turns out to be done already, by us.

        A key that is taken at the second try may be ours: the answer to the first was lost.
        """
        tries = 0

        def attempt() -> _T:
            nonlocal tries
            tries += 1
            return call()

        try:
            return self._ask(key, attempt, AlreadyExists)
        except AlreadyExists:
            if tries > 1 and self._ask(key, partial(self._head, self._name(key))).mark == mark:
                return None
            raise
        except NotFound:  # the upload is gone: it was finished, or somebody else's was, or there is no such bucket
            self._check_ours(key, mark)
            return None

    def _check_ours(self, key: str, mark: str) -> None:
        try:
            found = self._ask(key, partial(self._head, self._name(key)))
        except NotFound:
            raise StoreUnavailable(f"{key} in {self.url}: no such bucket, or the upload is gone; begin again") from None
        if found.mark != mark:
            raise AlreadyExists(f"{key} in {self.url}")
