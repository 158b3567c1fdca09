"""JSON from elsewhere: stricter than the standard library, which takes NaN, lets the second of two names win, and makes
strings that no UTF-8 can hold."""

import json
from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Any, TypeVar

_T = TypeVar("_T")


def loads(data: bytes) -> Any:
    """Return the value in `data`, UTF-8.

    Raises:
        ValueError: not JSON, a name twice in one object, a NaN or infinity, -0 for a whole number, half a surrogate
            pair, or nested too deep.
    """
    text = data.decode()
    return _checked(text, partial(json.loads, text, **_HOOKS))


def first(text: str, start: int) -> tuple[Any, int]:
    """Return the value that begins at `start`, and where it ends, whatever follows; raises as `loads`."""
    return _checked(text, partial(json.JSONDecoder(**_HOOKS).raw_decode, text, start))


def _checked(text: str, read: Callable[[], _T]) -> _T:
    try:
        found = read()
        if "\\u" in text:  # only an escape can leave half a surrogate pair, which cannot be written again
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if not isfinite(value := float(text)):
        raise ValueError("a number is too large")
    return value


def _whole(text: str) -> int:
    if text == "-0":  # a float to most readers
        raise ValueError("-0 is not a whole number")
    return int(text)


_HOOKS: dict[str, Any] = {
    "object_pairs_hook": _object,
    "parse_constant": _no_constant,
    "parse_float": _finite,
    "parse_int": _whole,
}
