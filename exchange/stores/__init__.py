"""Buckets: one small protocol, a module a backend, and `open_store`, which finds the backend of a URL."""

import re
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from exchange.errors import AlreadyExists, DifferentContent, NotFound, SettingsError
from exchange.spec import AzureInGoogle, GoogleInAzure, Identity
from exchange.stores.file import FileStore
from exchange.stores.memory import MemoryStore
from exchange.stores.protocol import READ_LIMIT, ObjectInfo, PrunableStore, Store, Writer, is_key

__all__ = ["READ_LIMIT", "ObjectInfo", "PrunableStore", "Store", "Writer", "exists", "is_key", "open_store", "put"]

_EXPECTED = "file:///folder, gs://bucket[/prefix], az://account/container[/prefix] or s3://bucket[/prefix]"
_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_CLOUD = re.compile(rf"(gs|az|s3)://({_NAME}(?:/{_NAME})*)/?", re.ASCII)
_Identity = TypeVar("_Identity", bound=Identity)


def open_store(url: str, identities: Sequence[Identity] = ()) -> PrunableStore:
    """Return the bucket at `url`; raises SettingsError for a URL of no known kind, or a name that no bucket has.

    `file:///folder`, `memory://name` (the same bucket for the same URL, in this process), `gs://bucket`,
    `az://account/container` or `s3://bucket`; the clouds' ones may go on with a prefix, which then begins every key.
    Credentials and endpoints are each SDK's own affair, and its module says which; but where the `bucket` of one of
    `identities` is the URL, or what it begins with up to a slash, that identity is used. Of several the longest counts.
    """
    try:
        return _open(url, identities)
    except ValueError as error:  # from urlsplit or an SDK
        raise SettingsError("store", [f"{url!r}: expected {_EXPECTED}: {error}"]) from error


def _open(url: str, identities: Sequence[Identity]) -> PrunableStore:
    parts = urlsplit(url)
    is_path = parts.path.startswith("/") and not parts.query and not parts.fragment  # '#' and '?' are written %23, %3F
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and is_path:
        return FileStore(Path(unquote(parts.path)))
    if parts.scheme == "memory":
        return _in_memory(url)
    match = _CLOUD.fullmatch(url)
    if not match or (match[1] == "az" and "/" not in match[2]):
        raise SettingsError("store", [f"{url!r}: expected {_EXPECTED}"])
    try:
        return _open_cloud(url, match[1], match[2], identities)
    except ModuleNotFoundError as error:
        needed = {"google": "gcp", "azure": "azure"}.get(str(error.name).partition(".")[0])
        extra = needed or {"gs": "gcp", "az": "azure", "s3": "s3"}[match[1]]
        raise SettingsError("store", [f"{url!r}: {error.name} is missing: pip install 'fedbucket[{extra}]'"]) from error


def _open_cloud(url: str, scheme: str, path: str, identities: Sequence[Identity]) -> PrunableStore:
    # Imported here: an SDK is a good part of a function's cold start, and is installed only where it is needed.
    bucket, _, prefix = path.partition("/")
    if scheme == "gs":
        from exchange.stores.gcs import GcsStore

        return GcsStore(bucket, prefix, _fitting(url, AzureInGoogle, identities))
    if scheme == "s3":
        from exchange.stores.s3 import S3Store

        return S3Store(bucket, prefix)
    from exchange.stores.azure import AzureStore

    container, _, prefix = prefix.partition("/")
    return AzureStore(bucket, container, prefix, _fitting(url, GoogleInAzure, identities))


def _fitting(url: str, kind: type[_Identity], identities: Sequence[Identity]) -> _Identity | None:
    path = f"{url.rstrip('/')}/"
    fitting = [each for each in identities if isinstance(each, kind) and path.startswith(f"{each.bucket.rstrip('/')}/")]
    return max(fitting, key=lambda each: len(each.bucket), default=None)


@cache
def _in_memory(url: str) -> MemoryStore:
    return MemoryStore(time.time, url)  # noqa: TID251 - an edge: this process is the store


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
