"""`file://`: what a folder promises beyond the contract."""

from __future__ import annotations

import os
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from exchange.errors import AlreadyExists, NotFound, StoreError, VersionMismatch
from exchange.stores import open_store
from exchange.stores.file import FileStore
from tests.exchange.stores.test_contract import METHODS, NOT_KEYS, stream, write_and_fail


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "buckets" / "parent")


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: files with their bytes, folders with None."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def test_an_object_is_a_plain_file_that_others_may_read(store: FileStore) -> None:
    store.create("a/b.json", b"{}\n")
    stream(store, "a/c.bin", b"data")
    allowed = ~current_umask()
    assert (store.root / "a/b.json").read_bytes() == b"{}\n"
    assert (store.root / "a/c.bin").read_bytes() == b"data"
    for name in ("a/b.json", "a/c.bin"):
        status = (store.root / name).stat()
        assert stat.S_IMODE(status.st_mode) == 0o666 & allowed
        assert status.st_nlink == 1
    assert stat.S_IMODE((store.root / "a").stat().st_mode) == 0o777 & allowed


def current_umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def test_no_temporary_file_is_left_by_success_or_failure(store: FileStore) -> None:
    store.create("a", b"data")
    stream(store, "b", b"data")
    with pytest.raises(AlreadyExists):
        stream(store, "a", b"data")
    with pytest.raises(ZeroDivisionError), store.writer("c", 4) as out:
        write_and_fail(out)
    with pytest.raises(StoreError), store.writer("d", 4) as out:
        out.write(b"12345")
    assert tree(store.root) == {".tmp": None, "a": b"data", "b": b"data"}


def test_a_full_disk_is_a_stores_error_that_leaves_nothing_behind(store: FileStore) -> None:
    store.create("a", b"data")
    with no_room(1000):
        for write in (store.create, partial(stream, store)):
            with pytest.raises(StoreError, match=r"b/c in file://.*was not written: .*make room"):
                write("b/c", bytes(1001))
    assert tree(store.root) == {".tmp": None, "a": b"data"}
    assert store.create("b/c", bytes(1001))


@contextmanager
def no_room(limit: int) -> Iterator[None]:
    """Let the system refuse to this process any file of more than `limit` bytes: one need not be root for that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_reading_makes_no_folder(store: FileStore) -> None:
    with pytest.raises(NotFound):
        store.read("a")
    assert list(store.list("")) == list(store.list("a/b")) == list(store.folders()) == []
    assert not store.root.exists()


def test_no_name_reaches_out_of_the_folder(store: FileStore) -> None:
    store.create("a/b", b"inside")
    outside = store.root.parent
    (outside / "x").write_bytes(b"outside")
    (store.root / ".tmp" / "x").write_bytes(b"hidden")
    before = tree(outside)
    for key in [*NOT_KEYS, str(outside / "x"), f"../{store.root.name}/a/b"]:
        for method in METHODS.values():
            with pytest.raises(ValueError, match="not a key"):
                method(store, key)
        with pytest.raises(ValueError, match="not the beginning of a key"):
            list(store.list(key))
    assert tree(outside) == before
    assert [info.key for info in store.list("")] == ["a/b"]


def test_an_object_cannot_stand_below_another(store: FileStore) -> None:
    store.create("a", b"data")
    for key in ("a/b", "a/b/c"):
        with pytest.raises(StoreError, match="expected a folder"):
            store.create(key, b"data")
    assert tree(store.root) == {".tmp": None, "a": b"data"}


def test_a_copy_that_keeps_times_holds_the_same_versions(store: FileStore, tmp_path: Path) -> None:
    version = store.create("a/b", b"data")
    shutil.copytree(store.root, tmp_path / "copy")
    copy = FileStore(tmp_path / "copy")
    assert copy.read("a/b", version) == b"data"
    assert copy.stat("a/b").created == store.stat("a/b").created


def test_creation_times_are_the_stores_own(tmp_path: Path) -> None:
    store = FileStore(tmp_path, clock=lambda: 1234.5)
    store.create("a", b"")
    assert (tmp_path / "a").stat().st_mtime == 1234.5
    assert store.stat("a").created == store.stat("a").now == 1234.5


class Overwriting:
    """A buffer at whose first touch, just before it is filled, another tool copies a file over the one that is read."""

    def __init__(self, path: Path, size: int, data: bytes) -> None:
        self.path, self.buffer, self.data = path, memoryview(bytearray(size)), data

    def __len__(self) -> int:
        return len(self.buffer)

    def __getitem__(self, part: slice) -> memoryview:
        self.path.write_bytes(self.data)
        return self.buffer[part]


@pytest.mark.parametrize("other", [b"other", b"of another length"])
def test_an_object_overwritten_while_it_is_read_is_an_error(store: FileStore, other: bytes) -> None:
    version = store.create("a", b"first")
    for pinned in (version, None):
        with pytest.raises(VersionMismatch):
            store.read_into("a", 0, Overwriting(store.root / "a", 5, other), pinned)  # type: ignore[arg-type]
        (store.root / "a").unlink()
        store.create("a", b"first")


@pytest.mark.parametrize("name", ["plain", "with space", "ünïcode", "100%", "a#b", "a?b", "a+b"])
def test_the_url_of_a_folder_opens_it(tmp_path: Path, name: str) -> None:
    store = FileStore(tmp_path / name)
    store.create("a", b"data")
    again = open_store(store.url)
    assert again.read("a") == b"data"
    assert again.url == store.url


def test_an_object_that_is_removed_while_others_are_listed_is_not_among_them(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for key in ("a", "b", "c"):
        store.create(key, b"data")
    listing = store.list("")
    found = [next(listing).key]
    store.remove("b")
    assert found + [info.key for info in listing] == ["a", "c"]
