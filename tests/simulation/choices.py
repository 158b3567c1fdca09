"""Where a schedule departs from the ordinary.

A schedule is a set of departures, each under a name that says where it is. What has no departure goes its ordinary
way, so that a schedule with some of its departures left out is a schedule, too: that is how a failing one shrinks.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Protocol, TypeVar

T = TypeVar("T")


class Choices(Protocol):
    """Who decides what happens.

    Attributes:
        made: all departures so far, by name.
    """

    made: dict[str, str]

    def rate(self, options: Sequence[float]) -> float:
        """Return how often departures of one kind are to be tried; one of `options`."""

    def setting(self, name: str, options: Sequence[T]) -> T:
        """Return one of `options`, each as likely; the first is the ordinary one."""

    def departure(self, name: str, rate: float, options: Sequence[str]) -> str | None:
        """Return one of `options`, with probability `rate`; otherwise None, the ordinary way."""


class Drawn:
    """Choices that follow from a seed."""

    def __init__(self, seed: int) -> None:
        self.made: dict[str, str] = {}
        self._random = Random(seed)

    def rate(self, options: Sequence[float]) -> float:
        return self._random.choice(options)

    def setting(self, name: str, options: Sequence[T]) -> T:
        found = self._random.choice(options)
        if found != options[0]:
            self.made[name] = str(found)
        return found

    def departure(self, name: str, rate: float, options: Sequence[str]) -> str | None:
        if self._random.random() >= rate:
            return None
        self.made[name] = self._random.choice(options)
        return self.made[name]


class Recorded:
    """The choices of an earlier schedule, or some of them."""

    def __init__(self, recorded: Mapping[str, str]) -> None:
        self.made: dict[str, str] = {}
        self._recorded = recorded

    def rate(self, options: Sequence[float]) -> float:
        return 0.0

    def setting(self, name: str, options: Sequence[T]) -> T:
        found = next((option for option in options if str(option) == self._recorded.get(name)), options[0])
        if found != options[0]:
            self.made[name] = str(found)
        return found

    def departure(self, name: str, rate: float, options: Sequence[str]) -> str | None:
        if (found := self._recorded.get(name)) not in options:
            return None
        self.made[name] = found
        return found
