"""Buckets in memory that tests look into: with a clock moved by hand, a notice of every object and of every attempt."""

from collections.abc import Callable
from dataclasses import dataclass

from exchange import keys
from exchange.documents import sha256
from exchange.stores import Store
from exchange.stores.memory import MemoryStore


@dataclass
class Clock:
    """Seconds since 1970, moved by hand."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Bucket(MemoryStore):
    """A bucket that tells `created` of each new object, as clouds do: even if whoever made it was told that it failed.

    Attributes:
        attempts: (key, SHA-256) of every object that somebody tried to create, in order.
    """

    def __init__(self, clock: Clock, url: str = "memory://", created: Callable[[str], None] | None = None) -> None:
        super().__init__(clock, url)
        self._notify = created
        self.attempts: list[tuple[str, str]] = []

    def create(self, key: str, data: bytes) -> str:
        self.attempts.append((key, sha256(data)))
        version = super().create(key, data)
        if self._notify is not None:
            self._notify(key)
        return version


def contents(store: Store) -> dict[str, bytes]:
    """Return everything in a bucket, by key."""
    return {info.key: store.read(info.key) for info in store.list("")}


def answers(state: Store) -> dict[str, bytes]:
    """Return everything in a client's private state but the note of which settings it answers to."""
    return {key: data for key, data in contents(state).items() if not isinstance(keys.parse(key), keys.Agreed)}


def foreign_keys(store: Store) -> list[str]:
    """Return the keys in a bucket that the grammar does not know; there should be none."""
    return [info.key for info in store.list("") if keys.parse(info.key) is None]
