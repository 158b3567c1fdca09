"""Checks of the numbers that a guarantee rests on: each returns its value, or says what was expected and what came."""

import math
from collections.abc import Callable
from typing import Any


def positive(name: str, value: Any) -> float:
    """Return `value`, a finite number above 0; raises ValueError."""
    return _within(name, value, "a finite number above 0", lambda number: 0 < number < math.inf)


def non_negative(name: str, value: Any) -> float:
    """Return `value`, a finite number of at least 0; raises ValueError."""
    return _within(name, value, "a finite number of at least 0", lambda number: 0 <= number < math.inf)


def inside_unit_interval(name: str, value: Any) -> float:
    """Return `value`, a number above 0 and below 1; raises ValueError."""
    return _within(name, value, "a number above 0 and below 1", lambda number: 0 < number < 1)


def probability(name: str, value: Any) -> float:
    """Return `value`, a number above 0 and at most 1; raises ValueError."""
    return _within(name, value, "a number above 0 and at most 1", lambda number: 0 < number <= 1)


def count(name: str, value: Any) -> int:
    """Return `value`, a whole number of at least 1; raises ValueError."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")
    return int(value)


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")


def _within(name: str, value: Any, expectation: str, holds: Callable[[float], bool]) -> float:
    # NaN fails every comparison, so it fails here; a bool or a string is a mistake, not a number.
    try:
        sound = not isinstance(value, bool | str | bytes) and holds(number := float(value))
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise ValueError(f"{name}: expected {expectation}, got {value!r}")
    return number
