"""Buckets that remember everything that was ever done to them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import floor

from exchange.documents import sha256
from exchange.stores import ObjectInfo
from exchange.stores.memory import MemoryStore
from tests.simulation.scheduler import Scheduler


@dataclass(frozen=True)
class Creation:
    """Somebody's attempt to create an object.

    Attributes:
        by, event_id: the task's; empty for whoever set the stage.
        step, at: when, in steps and in true seconds.
    """

    key: str
    sha256: str
    data: bytes
    by: str
    event_id: str
    step: int
    at: float


class Bucket(MemoryStore):
    """A bucket with a clock of its own.

    Args:
        offset: seconds by which its clock is wrong.
        whole_seconds: whether it tells the time as an HTTP date does.
        created: is told of each new object, even if whoever made it was told that it failed.

    Attributes:
        attempts: to create, successful or not, in order.
        first: the creation of each key, in order.
        known: all bytes that were ever here, by digest.
        twice: keys that were written more than once.
        tampered: keys that somebody replaced or removed, which nobody has the right to.
    """

    def __init__(
        self, name: str, scheduler: Scheduler, offset: float, whole_seconds: bool, created: Callable[[str], None]
    ) -> None:
        super().__init__(lambda: scheduler.now + offset, f"memory://{name}")
        self.name = name
        self.attempts: list[Creation] = []
        self.first: dict[str, Creation] = {}
        self.known: dict[str, bytes] = {}
        self.twice: list[str] = []
        self.tampered: set[str] = set()
        self._scheduler = scheduler
        self._whole_seconds = whole_seconds
        self._created = created

    def create(self, key: str, data: bytes) -> str:
        scheduler, digest = self._scheduler, sha256(data)
        by, event_id = (scheduler.current.name, scheduler.current.event_id) if scheduler.current else ("", "")
        attempt = Creation(key, digest, bytes(data), by, event_id, scheduler.step, scheduler.now)
        self.attempts.append(attempt)
        version = super().create(key, data)
        self.known[digest] = attempt.data
        if key not in self.first:
            self.first[key] = attempt
        elif key not in self.tampered:
            self.twice.append(key)
        self._created(key)
        return version

    def replace(self, key: str, data: bytes) -> None:
        self.tampered.add(key)
        self.known[sha256(data)] = data
        super().replace(key, data)

    def lose(self, key: str) -> None:
        """Remove an object, as an accident would."""
        self.tampered.add(key)
        del self._objects[key]

    def stat(self, key: str) -> ObjectInfo:
        return self._told(super().stat(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return map(self._told, super().list(prefix))

    def has(self, key: object) -> bool:
        """Return whether it is there now."""
        return str(key) in self._objects

    def had(self, key: object, step: int) -> bool:
        """Return whether it was there at a step."""
        return (made := self.first.get(str(key))) is not None and made.step <= step

    def age(self, key: object, now: float) -> float:
        """Return the true age of an object."""
        return now - self.first[str(key)].at

    def bytes_of(self, key: object) -> bytes:
        """Return the bytes that a key was first created with."""
        return self.first[str(key)].data

    def _told(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, now=float(floor(info.now))) if self._whole_seconds else info
