"""The JSON objects that travel: validated on the way in, the same bytes for the same content on the way out."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from exchange import strict_json
from exchange.errors import InvalidDocument


class Document(BaseModel):
    """A frozen JSON object; unknown fields, coerced types and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """Return the one encoding: UTF-8, keys sorted, two spaces of indentation, a newline at the end."""
        content = self.model_dump(mode="json")
        return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Self:
        """Return the document in `data`; `source` is what an error calls it.

        Raises:
            InvalidDocument: not JSON, a name twice, or not of this form; every mistake is listed.
        """
        try:
            content = strict_json.loads(data)
        except ValueError as error:
            raise InvalidDocument(f"{source}: expected JSON, {error}") from error
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise InvalidDocument(f"{source}: " + "; ".join(problems(error, content))) from error


def problems(error: ValidationError, content: Any) -> list[str]:
    """Return one line a mistake in `content`: the field, what was expected, what came."""
    lines = []
    for problem in error.errors(include_url=False):
        if not problem["loc"] and problem["type"] == "value_error":  # a check across fields: each line says which
            lines += _expectation(problem["msg"]).splitlines()
        else:
            lines.append(_line(problem, content))
    return lines


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data`, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _line(problem: Mapping[str, Any], content: Any) -> str:
    location, kind, value = problem["loc"], problem["type"], problem["input"]
    if kind == "missing":
        return f"{_path([*_fields(location[:-1], content), location[-1]])}: is missing"
    field = _path(_fields(location, content))
    tag = problem.get("ctx", {}).get("discriminator", "").strip("'")
    if kind == "union_tag_not_found":
        return f"{field}.{tag}: is missing"
    if kind == "union_tag_invalid":
        return f"{field}.{tag}: expected one of {problem['ctx']['expected_tags']}, got {_shown(value[tag])}"
    return f"{field}: {_expectation(problem['msg'])}, got {_shown(value)}"


def _fields(location: Iterable[int | str], content: Any) -> Iterator[int | str]:
    for part in location:
        if isinstance(content, Mapping) and part not in content and part in content.values():
            continue  # which of several forms the content chose; no field
        yield part
        try:
            content = content[part]
        except (LookupError, TypeError):
            content = None


def _path(fields: Iterable[int | str]) -> str:
    path = "".join(f"[{field}]" if isinstance(field, int) else f".{field}" for field in fields)
    return path.lstrip(".") or "the whole"


def _expectation(message: str) -> str:
    return (
        message.removeprefix("Value error, ")
        .replace("Input should be", "expected")
        .replace("Tuple should have", "expected")
        .replace("Extra inputs are not permitted", "no such field")
    )


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
