"""Stores that let a test step in at every call: to crash there, or to let somebody else run first."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from exchange.errors import StoreUnavailable
from exchange.stores import READ_LIMIT, ObjectInfo, Store, Writer


class Unavailable(StoreUnavailable):
    """The store was made to fail: an error that a handler may catch."""


class Killed(BaseException):
    """The function was made to die: nothing catches that."""


@dataclass
class Crash:
    """A plan: crash at a call, before or after doing it. After: it was done, but the caller is told that it failed.

    Attributes:
        at: the call's number, from 0, or its name; None for no crash, which only counts.
        calls: what was called, in order, as METHOD KEY; a writer's calls are "begin", "write" and "commit".
        crashed: whether it came to that.
    """

    at: int | str | None = None
    when: Literal["before", "after"] = "before"
    error: type[BaseException] = Unavailable
    calls: list[str] = field(default_factory=list)
    crashed: bool = False

    def before(self, call: str) -> int:
        """Count a call that is about to be done; return its number."""
        number = len(self.calls)
        self.calls.append(call)
        self._crash(number, "before")
        return number

    def after(self, number: int) -> None:
        """Take notice that the call of that number was done."""
        self._crash(number, "after")

    def _crash(self, number: int, when: str) -> None:
        if when == self.when and self.at in (number, self.calls[number]) and not self.crashed:
            self.crashed = True
            raise self.error(f"made to fail {when} {self.calls[number]}")


class Flaky(Crash):
    """A plan in which every call may fail, before or after it is done, with a small probability; drawn from a seed."""

    def __init__(self, seed: int, probability: float) -> None:
        super().__init__(error=(Unavailable, Killed)[seed % 2])
        self._random = Random(seed)
        self._probability = probability

    def _crash(self, number: int, when: str) -> None:
        if self._random.random() < self._probability:
            self.crashed = True
            raise self.error(f"made to fail {when} {self.calls[number]}")


class WatchedStore:
    """`inner`, calling `before` with a name for every call, and `after` with what that returned once it is done.

    A writer's end is such a call, "commit": if `before` raises, the object is not created; if `after` does, it is.
    """

    def __init__(self, inner: Store, before: Callable[[str], int], after: Callable[[int], None]) -> None:
        self.url = inner.url
        self._inner = inner
        self._before = before
        self._after = after

    def create(self, key: str, data: bytes) -> str:
        with self._call(f"create {key}"):
            return self._inner.create(key, data)

    def read(self, key: str, version: str | None = None, limit: int = READ_LIMIT) -> bytes:
        with self._call(f"read {key}"):
            return self._inner.read(key, version, limit)

    def stat(self, key: str) -> ObjectInfo:
        with self._call(f"stat {key}"):
            return self._inner.stat(key)

    def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
        with self._call(f"read_into {key}"):
            self._inner.read_into(key, offset, buffer, version)

    @contextmanager
    def writer(self, key: str, size: int) -> Iterator[Writer]:
        with self._call(f"begin {key}"):
            pass
        number = None
        try:
            with self._inner.writer(key, size) as out:
                yield _WatchedWriter(out, lambda: self._call(f"write {key}"))
                number = self._before(f"commit {key}")
        finally:
            if number is not None:
                self._after(number)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        number = self._before(f"list {prefix}")
        yield from self._inner.list(prefix)
        self._after(number)

    def folders(self) -> Iterator[str]:
        number = self._before("folders")
        yield from self._inner.folders()
        self._after(number)

    @contextmanager
    def _call(self, call: str) -> Iterator[None]:
        number = self._before(call)
        try:
            yield
        finally:  # whatever the store answered, also that there is no such object, may be lost on the way
            self._after(number)


class CrashingStore(WatchedStore):
    """`inner`, crashing where `plan` says; any number of stores may share one plan."""

    def __init__(self, inner: Store, plan: Crash) -> None:
        super().__init__(inner, plan.before, plan.after)


class _WatchedWriter:
    def __init__(self, inner: Writer, call: Callable[[], AbstractContextManager[None]]) -> None:
        self._inner = inner
        self._call = call

    def write(self, data: bytes | bytearray | memoryview, /) -> object:
        with self._call():
            return self._inner.write(data)


@contextmanager
def tolerated() -> Iterator[None]:
    """Swallow what a plan raised, alone or in groups; let every other error through."""
    try:
        with suppress(Unavailable, Killed):
            yield
    except BaseExceptionGroup as group:
        if (rest := group.split((Unavailable, Killed))[1]) is not None:
            raise rest from None
