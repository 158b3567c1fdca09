"""`file://`: a bucket as a folder of plain files, shared safely by any number of threads and processes.

An object is written to a temporary file, made durable, and given its name by link(2), which fails if the name is
taken: the same "create only, whole or not at all" that cloud stores offer. Temporary files stand in `.tmp/`, which no
key can name.
"""

import errno
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from exchange.errors import AlreadyExists, NotFound, ObjectTooLarge, StoreError, VersionMismatch
from exchange.stores.protocol import READ_LIMIT, ObjectInfo, Writer, check_key, check_prefix, is_key

TEMPORARY = ".tmp"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FileStore:
    """A folder as a bucket.

    Args:
        root: the folder; made on the first create.
        clock: returns seconds since 1970; the store's clock, which stamps new files and tells `now`.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:  # noqa: TID251 - an edge: this machine is the store
        self.root = root.absolute()
        self.url = self.root.as_uri()
        self._clock = clock

    def create(self, key: str, data: bytes) -> str:
        if self._path(key).exists():  # saves the write; the link below decides
            raise AlreadyExists(f"{key} in {self.url}")
        with self.writer(key, len(data)) as out:
            out.write(data)
        return self.stat(key).version

    def read(self, key: str, version: str | None = None, limit: int = READ_LIMIT) -> bytes:
        with self._open(key, version) as file:
            if (size := os.fstat(file.fileno()).st_size) > limit:
                raise ObjectTooLarge(f"{key} in {self.url}: {size} bytes, the limit is {limit}")
            return file.read()

    def stat(self, key: str) -> ObjectInfo:
        with self._open(key, None) as file:
            return self._info(key, os.fstat(file.fileno()))

    def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
        with self._open(key, version) as file:
            file.seek(offset)
            filled = 0
            while filled < len(buffer):
                if not (count := file.readinto(buffer[filled:])):
                    raise StoreError(f"{key} in {self.url}: ends before byte {offset + len(buffer)}")
                filled += count

    @contextmanager
    def writer(self, key: str, size: int) -> Iterator[Writer]:
        path = self._path(key)
        temporary = self.root / TEMPORARY / uuid.uuid4().hex
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                yield file
                if file.tell() != size:
                    raise StoreError(f"{key} in {self.url}: {size} bytes announced, {file.tell()} written")
                self._finish(file)
            self._name(temporary, path)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise StoreError(f"{key} in {self.url}: was not written: {error.strerror}; make room there") from error
        finally:
            temporary.unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = self.root / check_prefix(prefix).rpartition("/")[0]
        for key in sorted(key for key in self._keys(folder) if key.startswith(prefix)):
            with suppress(NotFound):  # removed since it was found
                yield self.stat(key)

    def folders(self) -> Iterator[str]:
        for folder in sorted(self.root.glob("*/")):
            if any(self._keys(folder)):
                yield folder.name

    def remove(self, key: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._path(key).unlink()
            _make_names_durable(self._path(key).parent)

    def _keys(self, folder: Path) -> Iterator[str]:
        for path in folder.rglob("*"):
            if is_key(key := path.relative_to(self.root).as_posix()) and path.is_file():
                yield key

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    @contextmanager
    def _open(self, key: str, version: str | None) -> Iterator[FileIO]:
        try:
            file = self._path(key).open("rb", buffering=0)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound(f"{key} in {self.url}: there is no such object") from error
        with file:
            found = _version(os.fstat(file.fileno()))
            if version not in (None, found):
                raise VersionMismatch(f"{key} in {self.url}: version {version} asked for, it is {found} now")
            yield file
            if found != _version(os.fstat(file.fileno())):  # a copy over it, made by another tool, writes in place
                raise VersionMismatch(f"{key} in {self.url}: overwritten while it was read")

    def _finish(self, file: BinaryIO) -> None:
        file.flush()
        now = self._clock()
        os.utime(file.fileno(), (now, now))
        os.fsync(file.fileno())

    def _name(self, temporary: Path, path: Path) -> None:
        try:
            _make_folder(path.parent)
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(f"{path}: expected a folder where there is a file") from error
        try:
            os.link(temporary, path)
        except FileExistsError as error:
            raise AlreadyExists(f"{path.relative_to(self.root)} in {self.url}") from error
        _make_names_durable(path.parent)

    def _info(self, key: str, status: os.stat_result) -> ObjectInfo:
        return ObjectInfo(key, status.st_size, _version(status), status.st_mtime, self._clock())


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _make_names_durable(folder.parent)


def _make_names_durable(folder: Path) -> None:
    # What a file holds is durable by its own fsync; that it is there under its name, by its folder's.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version(status: os.stat_result) -> str:
    # No inode: a folder that was copied with its times (cp -a, rsync -a, tar) holds the same versions.
    return f"{status.st_mtime_ns}-{status.st_size}"
