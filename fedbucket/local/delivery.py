"""Delivery of events as the clouds do it: at least once, with retries and backoff; out of order if asked for."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Generic, Literal, TypeVar

MAX_ATTEMPTS = 8
_FIRST_BACKOFF = 0.05  # seconds; doubled with each attempt. Clouds begin at 10 s; here nobody shares the machine


@dataclass(frozen=True)
class Chaos:
    """How unkind the delivery is; all probabilities are of one event."""

    seed: int
    duplicate: float = 0.3
    delay: float = 0.5
    max_delay: float = 0.4
    """Seconds; long enough for events to overtake each other, and rounds to close before some arrive."""
    fail: float = 0.2
    """A handler fails before it begins, or after it has done all."""


Failing = Literal["before", "after"] | None
Event = TypeVar("Event")


@dataclass(frozen=True, order=True)
class Delivery(Generic[Event]):
    """An event on its way; ordered by when it is due.

    Attributes:
        copy: which of the copies that chaos has made; a redelivery is of the same.
    """

    due: float
    number: int
    event: Event = field(compare=False)
    copy: int = field(compare=False, default=0)
    attempt: int = field(compare=False, default=1)
    failing: Failing = field(compare=False, default=None)


class Queue(Generic[Event]):
    """Events not yet handled.

    Args:
        chaos: None delivers each event once, in order.
    """

    def __init__(self, chaos: Chaos | None) -> None:
        self._chaos = chaos
        self._random = Random(chaos.seed if chaos else 0)
        self._heap: list[Delivery[Event]] = []
        self._numbers = count()

    def post(self, event: Event, now: float) -> None:
        """Take an event for delivery: once, or, under chaos, perhaps twice and perhaps late."""
        copies = 2 if self._happens("duplicate") else 1
        for copy in range(copies):
            delay = self._random.uniform(0, self._chaos.max_delay) if self._chaos and self._happens("delay") else 0.0
            heapq.heappush(self._heap, Delivery(now + delay, next(self._numbers), event, copy))

    def retry(self, delivery: Delivery[Event], now: float, wait: float | None = None) -> None:
        """Deliver again after `wait` seconds; by default later each time."""
        due = now + (_FIRST_BACKOFF * 2 ** (delivery.attempt - 1) if wait is None else wait)
        self.postpone(replace(delivery, attempt=delivery.attempt + 1), due)

    def postpone(self, delivery: Delivery[Event], due: float) -> None:
        """Deliver as if it had not been tried."""
        heapq.heappush(self._heap, replace(delivery, due=due, number=next(self._numbers), failing=None))

    def due(self, now: float) -> Iterator[Delivery[Event]]:
        """Yield, and forget, the deliveries that are due, including those posted meanwhile."""
        while self._heap and self._heap[0].due <= now:
            yield heapq.heappop(self._heap)

    @property
    def next_due(self) -> float | None:
        """When the next delivery is due; None if there is none."""
        return self._heap[0].due if self._heap else None

    def failure(self, delivery: Delivery[Event]) -> Failing:
        """Return whether chaos has this handling fail, before all or after all; late attempts never do."""
        if delivery.attempt >= MAX_ATTEMPTS // 2 or not self._happens("fail"):
            return None
        return self._random.choice(["before", "after"])

    def _happens(self, what: str) -> bool:
        return self._chaos is not None and self._random.random() < float(getattr(self._chaos, what))
