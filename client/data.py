"""Where a client's data are: a path, any text that its task understands, or an object or a prefix in a bucket.

What lies in a bucket is copied to a local folder, at one version, and copied again only once it was replaced.
"""

import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from exchange.documents import sha256
from exchange.errors import NotFound, SettingsError
from exchange.spec import Identity
from exchange.stores import ObjectInfo, Store, open_store

_IN_BUCKET = re.compile(r"((?:gs|s3)://[^/]+|az://[^/]+/[^/]+)/(.+)")
_BLOCK = 2**24  # bytes of a request: few of them, little memory


def data_source(folder: Path, data: str, cache: Path | None, identities: Sequence[Identity] = ()) -> str:
    """Return what is handed to the task's data(): a local path where there is one, anything else as it is.

    Args:
        folder: what `data` is relative to, if it is a path.
        data: a path, the URL of an object or a prefix (gs://, az://, s3://), or any text.
        cache: a folder for copies of what lies in buckets; None for none.
        identities: who asks, where the bucket is in another cloud.

    Raises:
        NotFound: there is no such object, and no object under such a prefix.
        SettingsError: the URL's key is none that the stores know.
    """
    with suppress(OSError):  # too long for a path: it is some other text
        if (folder / data).exists():
            return str((folder / data).resolve())
    if cache is not None and (match := _IN_BUCKET.fullmatch(data)):
        return str(fetch(open_store(match[1], identities), match[2], cache))
    return data


def fetch(store: Store, name: str, cache: Path) -> Path:
    """Return the local copy of the object `name`, or the folder of copies of all objects under the prefix `name`.

    What `cache` holds of an earlier version is removed.
    """
    try:
        found = _find(store, name)
    except ValueError as error:
        raise SettingsError("client.toml", [f"data: {store.url}/{name}: {error}"]) from error
    versions = sha256("\n".join(f"{local} {info.version}" for local, info in found.items()).encode())
    home = cache / sha256(f"{store.url}/{name}".encode())
    copy = home / versions
    if not copy.exists():
        _copy(store, found, copy, cache)
        for other in home.iterdir():
            if other != copy:
                shutil.rmtree(other)
    return copy / next(iter(found)) if name in {info.key for info in found.values()} else copy


def _find(store: Store, name: str) -> dict[str, ObjectInfo]:
    """Return the objects by where they are to lie."""
    try:
        return {name.rpartition("/")[2]: store.stat(name)} if not name.endswith("/") else _under(store, name)
    except NotFound:
        return _under(store, f"{name}/")


def _under(store: Store, prefix: str) -> dict[str, ObjectInfo]:
    if found := {info.key.removeprefix(prefix): info for info in store.list(prefix)}:
        return found
    raise NotFound(f"data: there is no object {prefix.rstrip('/')} in {store.url}, and none under {prefix}")


def _copy(store: Store, found: dict[str, ObjectInfo], copy: Path, cache: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        whole = Path(folder) / "whole"
        for local, info in found.items():
            (whole / local).parent.mkdir(parents=True, exist_ok=True)
            _download(store, info, whole / local)
        try:
            whole.rename(copy)
        except OSError:
            if not copy.exists():  # otherwise another process was quicker with the same copy
                raise


def _download(store: Store, info: ObjectInfo, path: Path) -> None:
    buffer = bytearray(min(_BLOCK, info.size))
    with path.open("wb") as file:
        for offset in range(0, info.size, _BLOCK):
            part = memoryview(buffer)[: info.size - offset]
            store.read_into(info.key, offset, part, info.version)
            file.write(part)
