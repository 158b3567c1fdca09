"""The JSON objects that travel: validated on the way in, the same bytes for the same content on the way out."""

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from exchange import strict_json
from exchange.errors import InvalidDocument

MAX_BYTES = 16 * 2**20  # a cohort of 10,000 clients takes about 3 MiB


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
            strict_json.loads(data)
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise InvalidDocument(f"{source}: " + "; ".join(problems(error))) from error
        except ValueError as error:
            raise InvalidDocument(f"{source}: expected JSON, {error}") from error


def problems(error: ValidationError) -> list[str]:
    """Return one line a mistake: the field, what was expected, what came."""
    lines = []
    for problem in error.errors(include_url=False):
        location, expectation = problem["loc"], _expectation(problem["msg"])
        if not location and problem["type"] == "value_error":  # a check across fields: each line says which
            lines += expectation.splitlines()
        else:
            lines.append(f"{_field(location)}: {expectation}{_value(problem['type'], problem['input'])}")
    return lines


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data`, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _field(location: tuple[int | str, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.lstrip(".") or "the whole"


def _expectation(message: str) -> str:
    return (
        message.removeprefix("Value error, ")
        .replace("Input should be", "expected")
        .replace("Tuple should have", "expected")
        .replace("Extra inputs are not permitted", "no such field")
        .replace("Field required", "is missing")
    )


def _value(kind: str, value: Any) -> str:
    if kind == "missing":
        return ""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return f", got {text if len(text) <= 80 else text[:77] + '…'}"
