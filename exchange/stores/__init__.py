"""Buckets: one small protocol, a module a backend, and `open_store`, which finds the backend of a URL."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from exchange.errors import AlreadyExists, DifferentContent, NotFound, SettingsError
from exchange.stores.file import FileStore
from exchange.stores.protocol import READ_LIMIT, ObjectInfo, Store, Writer

__all__ = ["READ_LIMIT", "ObjectInfo", "Store", "Writer", "exists", "open_store", "put"]


def open_store(url: str) -> Store:
    """Return the bucket at `url`; raises SettingsError for a URL of no known kind."""
    parts = urlsplit(url)
    is_path = parts.path.startswith("/") and not parts.query and not parts.fragment  # '#' and '?' are written %23, %3F
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and is_path:
        return FileStore(Path(unquote(parts.path)))
    raise SettingsError("store", [f"{url!r}: expected file:///folder"])


def put(store: Store, key: str, data: bytes) -> None:
    """Create an object, or find it there with the same bytes, which is as good.

    Raises:
        DifferentContent: the key is taken by other bytes.
    """
    try:
        store.create(key, data)
    except AlreadyExists:
        if store.read(key, limit=max(READ_LIMIT, len(data))) != data:
            raise DifferentContent(f"{key} in {store.url} exists with other content than expected") from None


def exists(store: Store, key: str) -> bool:
    """Return whether an object has that key."""
    try:
        store.stat(key)
    except NotFound:
        return False
    return True
