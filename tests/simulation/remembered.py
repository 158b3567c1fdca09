"""Pure functions of the code under test, remembered: thousands of schedules ask them the same."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any
from unittest.mock import patch

from client.privacy import accounting, plan
from exchange import keys, strict_json
from exchange.documents import Document
from exchange.stores import memory
from exchange.stores.protocol import check_key, is_key

_parse_document = Document.from_bytes.__func__
_SIZE = 1 << 14  # a schedule makes some hundred documents


@lru_cache(maxsize=_SIZE)
def _document(kind: type[Document], data: bytes, source: str) -> Any:
    return _parse_document(kind, data, source)


def _copied(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return `parse` with a memory; whoever asks may take entries out of the object that comes back."""
    known = lru_cache(maxsize=_SIZE)(parse)

    def loads(data: bytes) -> Any:
        found = known(data)
        return dict(found) if isinstance(found, dict) else found

    return loads


@contextmanager
def remembered() -> Iterator[None]:
    """Remember, within the context, documents as parsed, keys as parsed, headers, and what privacy costs."""
    with ExitStack() as stack:
        for owner, name in ((keys, "parse"), (accounting, "gaussian_epsilon"), (plan, "calibrate_multiplier")):
            stack.enter_context(patch.object(owner, name, lru_cache(maxsize=_SIZE)(getattr(owner, name))))
        stack.enter_context(patch.object(memory, "is_key", lru_cache(maxsize=_SIZE)(is_key)))
        stack.enter_context(patch.object(memory, "check_key", lru_cache(maxsize=_SIZE)(check_key)))
        stack.enter_context(patch.object(strict_json, "loads", _copied(strict_json.loads)))
        stack.enter_context(patch.object(Document, "from_bytes", classmethod(_document)))
        yield
