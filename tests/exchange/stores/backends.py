"""The backends that the contract is held against. To add one: write a function like those below, name it in BACKENDS.

A test works under a prefix of its own, so that a backend may also be a bucket that holds other things.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from exchange.stores import PrunableStore, open_store
from exchange.stores.file import FileStore
from exchange.stores.memory import MemoryStore
from tests.exchange.stores.behind import behind
from tests.support.emulators import running

CONFORMANCE = "FEDBUCKET_CONFORMANCE"  # names the bucket to be tested instead: see conformance.py


@dataclass(frozen=True)
class Bucket:
    """A bucket for one test.

    Attributes:
        store: the backend under test.
        replace: puts an object there behind the protocol's back: over another one, or under a name that is no key.
        tick: moves the store's clock on by so many seconds; None where nobody can.
        prefix: begins every key that a test makes; the bucket is empty there.
    """

    store: PrunableStore
    replace: Callable[[str, bytes], None]
    tick: Callable[[float], None] | None = None
    prefix: str = field(default_factory=lambda: f"contract-{uuid.uuid4().hex[:12]}")

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def listed(self, name: str = "") -> list[str]:
        """The names of all objects whose name begins with `name`."""
        return [info.key.removeprefix(f"{self.prefix}/") for info in self.store.list(self.key(name))]


@dataclass(frozen=True)
class Backend:
    """How to come by a bucket.

    Attributes:
        open: given an empty folder, opens a bucket for one test.
        shared: whether another process that calls `open_store(store.url)` finds the same bucket.
        ticks: whether a test can move its clock.
    """

    open: Callable[[Path], AbstractContextManager[Bucket]]
    shared: bool
    ticks: bool = False


class Clock:
    """A store's clock, which nothing but a test moves; far from this machine's."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def memory(_: Path) -> Iterator[Bucket]:
    clock = Clock()
    store = MemoryStore(clock)
    yield Bucket(store, store.replace, clock.tick)


@contextmanager
def file(folder: Path) -> Iterator[Bucket]:
    clock = Clock()
    store = FileStore(folder / "bucket", clock)

    def replace(key: str, data: bytes) -> None:
        path = store.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    yield Bucket(store, replace, clock.tick)


@contextmanager
def emulated(cloud: str, _: Path) -> Iterator[Bucket]:
    """A new bucket in the emulator of that cloud."""
    with running(cloud) as url:
        behind(url).make()
        store = open_store(url)
        yield Bucket(store, behind(url).replace)


@contextmanager
def real(url: str, _: Path) -> Iterator[Bucket]:
    """A prefix of its own in somebody's bucket, of which nothing is left."""
    url = f"{url}/{uuid.uuid4().hex[:12]}"
    try:
        yield Bucket(open_store(url), behind(url).replace)
    finally:
        behind(url).clear()


if CONFORMANCE in os.environ:
    BACKENDS = {"real": Backend(partial(real, os.environ[CONFORMANCE].rstrip("/")), shared=True)}
else:
    BACKENDS = {
        "memory": Backend(memory, shared=False, ticks=True),
        "file": Backend(file, shared=True, ticks=True),
        "gcs": Backend(partial(emulated, "gcs"), shared=True),
        "azure": Backend(partial(emulated, "azure"), shared=True),
        "s3": Backend(partial(emulated, "s3"), shared=True),
    }
