"""JSON from elsewhere: stricter than the standard library, which takes NaN and lets the second of two names win."""

import json
from typing import Any


def loads(data: bytes) -> Any:
    """Return the value in `data`, UTF-8.

    Raises:
        ValueError: not JSON, a name twice in one object, a NaN or infinity, or nested too deep.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
