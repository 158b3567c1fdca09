"""The contract of a store. Every backend passes every test here; `backends.py` says how to add one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from exchange.errors import AlreadyExists, DifferentContent, NotFound, ObjectTooLarge, StoreError, VersionMismatch
from exchange.stores import ObjectInfo, PrunableStore, Store, Writer, exists, put
from tests.exchange.stores import other_process
from tests.exchange.stores.backends import Bucket

ROOT = Path(__file__).parents[3]
LARGE = 9 * 2**20  # bytes: more than one part of any cloud's multipart upload
PAGE = 1000  # objects that GCS and S3 list at a time

NOT_KEYS = [
    "../x", "a/../b", "a/..", "..", ".", "./a", "a/./b", "/x", "/", "//", "a//b", ".tmp/x", ".hidden", "a/.hidden",
    "\0", "a\0b", "a\n", "a/b\n", "\na", "a b", " a", "a\\b", "..\\x", "C:\\x", "C:/x", "a?b", "a#b", "a%2Fb",
    "a*", "a~", "ключ", "é", "e\u0301", "\u2024\u2024/x", "\ud800", "x" * 600, "x/" * 300 + "x", "x" * 256,
    "a/" + "x" * 256,
]  # fmt: skip


@contextlib.contextmanager
def hostile_switching() -> Iterator[None]:
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def race(racers: int, act: Callable[[int], str | None]) -> list[int]:
    """Run `act(0)`, `act(1)`, … at once, in threads; return who did not run into AlreadyExists."""
    barrier = Barrier(racers)

    def run(racer: int) -> bool:
        barrier.wait()
        try:
            act(racer)
        except AlreadyExists:
            return False
        return True

    with hostile_switching(), ThreadPoolExecutor(racers) as pool:
        return [racer for racer, won in enumerate(pool.map(run, range(racers))) if won]


def stream(store: Store, key: str, data: bytes, chunk: int = 2**20) -> None:
    with store.writer(key, len(data)) as out:
        for begin in range(0, len(data), chunk):
            out.write(data[begin : begin + chunk])


def read_range(store: Store, key: str, offset: int, count: int, version: str | None = None) -> bytes:
    data = bytearray(count)
    store.read_into(key, offset, memoryview(data), version)
    return bytes(data)


def assert_absent(bucket: Bucket, name: str) -> None:
    """No object has that name, whichever way one asks, and the name is free."""
    key = bucket.key(name)
    assert not exists(bucket.store, key)
    assert bucket.listed(name) == []
    for ask in (bucket.store.read, bucket.store.stat):
        with pytest.raises(NotFound):
            ask(key)
    bucket.store.create(key, b"free")
    assert bucket.store.read(key) == b"free"


# Creation


def test_what_was_created_is_read_back(bucket: Bucket) -> None:
    data = bytes(range(256)) * 40
    version = bucket.store.create(bucket.key("a/b/c.bin"), data)
    assert bucket.store.read(bucket.key("a/b/c.bin")) == data
    assert bucket.store.read(bucket.key("a/b/c.bin"), version) == data


def test_an_object_may_be_empty(bucket: Bucket) -> None:
    bucket.store.create(bucket.key("created"), b"")
    stream(bucket.store, bucket.key("streamed"), b"")
    for name in ("created", "streamed"):
        assert bucket.store.read(bucket.key(name)) == b""
        assert bucket.store.stat(bucket.key(name)).size == 0


def test_create_stat_and_list_tell_the_same_version(bucket: Bucket) -> None:
    version = bucket.store.create(bucket.key("a"), b"data")
    stream(bucket.store, bucket.key("b"), b"data")
    stated = [bucket.store.stat(bucket.key(name)) for name in ("a", "b")]
    listed = list(bucket.store.list(bucket.key("")))
    assert stated[0].version == version
    assert [facts(info) for info in listed] == [facts(info) for info in stated]


def facts(info: ObjectInfo) -> tuple[str, int, str, float]:
    return info.key, info.size, info.version, info.created


def test_a_taken_key_stays_as_it_is(bucket: Bucket) -> None:
    version = bucket.store.create(bucket.key("a"), b"first")
    with pytest.raises(AlreadyExists):
        bucket.store.create(bucket.key("a"), b"other")
    with pytest.raises(AlreadyExists):
        bucket.store.create(bucket.key("a"), b"first")
    with pytest.raises(AlreadyExists):
        stream(bucket.store, bucket.key("a"), b"other")
    assert bucket.store.read(bucket.key("a"), version) == b"first"
    assert bucket.listed() == ["a"]


def test_of_fifty_threads_exactly_one_creates_a_key(bucket: Bucket) -> None:
    for attempt in range(6):
        key = bucket.key(f"race-{attempt}")
        winners = race(50, lambda racer, key=key: bucket.store.create(key, contents[racer]))
        assert len(winners) == 1
        assert bucket.store.read(key) == contents[winners[0]]


contents = [f"{racer:04d}".encode() * 4000 for racer in range(50)]


def test_of_eight_processes_exactly_one_creates_each_key(shared_bucket: Bucket) -> None:
    count, racers = 24, [f"p{number}" for number in range(8)]
    won = race_processes(shared_bucket, racers, count)
    for index in range(count):
        winners = [racer for racer in racers if index in won[racer]]
        assert len(winners) == 1, f"key {index} was won by {winners}"
        assert shared_bucket.store.read(shared_bucket.key(f"{index:03d}")) == other_process.content(winners[0], index)
    assert len(shared_bucket.listed()) == count


def race_processes(bucket: Bucket, racers: list[str], count: int) -> dict[str, list[int]]:
    """All wait for the end of one pipe, so that all start in the same moment; returns what each has won."""
    start, go = os.pipe()
    with contextlib.ExitStack() as stack:
        processes = {
            racer: stack.enter_context(other("race", bucket.store.url, bucket.prefix, racer, str(count), stdin=start))
            for racer in racers
        }
        os.close(start)
        for process in processes.values():
            assert process.stdout.readline() == "ready\n"
        os.close(go)
        answers = {racer: process.communicate(timeout=60)[0] for racer, process in processes.items()}
    return {racer: json.loads(answer) for racer, answer in answers.items()}


def other(*arguments: str, stdin: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", other_process.__name__, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, text=True)


# Streams


def test_a_streamed_object_holds_every_byte_in_order(bucket: Bucket) -> None:
    data = os.urandom(3 * 2**20 + 17)
    pieces = (data[:1], b"", bytearray(data[1:100]), memoryview(data)[100 : 2**20], data[2**20 :])
    with bucket.store.writer(bucket.key("a"), len(data)) as out:
        for piece in pieces:
            out.write(piece)
    assert bucket.store.read(bucket.key("a")) == data


def test_a_streamed_object_is_invisible_until_it_is_complete(bucket: Bucket) -> None:
    data = bytes(LARGE)
    with bucket.store.writer(bucket.key("deep/a"), len(data)) as out:
        out.write(data)
        assert not exists(bucket.store, bucket.key("deep/a"))
        assert bucket.listed() == []
        assert bucket.prefix not in bucket.store.folders()
    assert bucket.store.stat(bucket.key("deep/a")).size == len(data)
    assert bucket.listed() == ["deep/a"]


def test_of_two_large_streams_one_wins_and_its_bytes_are_whole(bucket: Bucket) -> None:
    data, complete = [b"left" * (LARGE // 4), b"right" * (LARGE // 5)], Barrier(2)

    def upload(racer: int) -> None:
        with bucket.store.writer(bucket.key("a"), len(data[racer])) as out:
            for begin in range(0, len(data[racer]), 2**20):
                out.write(data[racer][begin : begin + 2**20])
            complete.wait()

    winners = race(2, upload)
    assert len(winners) == 1
    assert bucket.store.read(bucket.key("a")) == data[winners[0]]
    assert bucket.listed() == ["a"]


def test_of_many_streams_one_wins(bucket: Bucket) -> None:
    for attempt in range(3):
        key = bucket.key(f"race-{attempt}")
        winners = race(20, lambda racer, key=key: stream(bucket.store, key, contents[racer], chunk=5000))
        assert len(winners) == 1
        assert bucket.store.read(key) == contents[winners[0]]


def test_an_exception_in_a_stream_leaves_nothing(bucket: Bucket) -> None:
    with pytest.raises(ZeroDivisionError), bucket.store.writer(bucket.key("a"), 4) as out:
        write_and_fail(out)
    assert bucket.prefix not in bucket.store.folders()
    assert_absent(bucket, "a")


def write_and_fail(out: Writer) -> None:
    out.write(b"data")
    raise ZeroDivisionError


@pytest.mark.parametrize("written", [b"", b"abc", b"abcde", b"abcd" * 100_000])
def test_a_stream_of_another_length_than_announced_leaves_nothing(bucket: Bucket, written: bytes) -> None:
    with pytest.raises(StoreError) as caught, bucket.store.writer(bucket.key("a"), 4) as out:
        out.write(written)
    assert not isinstance(caught.value, AlreadyExists)
    assert bucket.prefix not in bucket.store.folders()
    assert_absent(bucket, "a")


def test_a_process_killed_half_way_through_a_stream_leaves_nothing(shared_bucket: Bucket) -> None:
    kill_half_way(shared_bucket, 4 * 2**20)


def kill_half_way(bucket: Bucket, half: int) -> None:
    start, go = os.pipe()
    with other("die", bucket.store.url, bucket.key("a"), str(half), stdin=start) as process:
        os.close(start)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    os.close(go)
    assert bucket.listed() == []
    assert bucket.prefix not in bucket.store.folders()
    assert_absent(bucket, "a")


@pytest.mark.slow
def test_a_process_killed_half_way_through_a_large_stream_leaves_nothing(shared_bucket: Bucket) -> None:
    kill_half_way(shared_bucket, 100 * 2**20)


# Reading


def test_what_is_missing_is_not_found(bucket: Bucket) -> None:
    bucket.store.create(bucket.key("folder/a"), b"data")
    for name in ("absent", "folder", "folder/b", "folder/a/b", "folder/a.json"):
        assert not exists(bucket.store, bucket.key(name))
        for ask in (
            bucket.store.read,
            bucket.store.stat,
            lambda key: bucket.store.read(key, "1"),
            lambda key: read_range(bucket.store, key, 0, 1),
            lambda key: read_range(bucket.store, key, 0, 1, "1"),
        ):
            with pytest.raises(NotFound):
                ask(bucket.key(name))


@pytest.mark.parametrize("other", [b"other", b"of another length"])
def test_a_replaced_object_cannot_be_read_at_its_old_version(bucket: Bucket, other: bytes) -> None:
    key = bucket.key("a")
    version = bucket.store.create(key, b"first")
    bucket.replace(key, other)
    with pytest.raises(VersionMismatch):
        bucket.store.read(key, version)
    with pytest.raises(VersionMismatch):
        read_range(bucket.store, key, 0, 1, version)
    assert bucket.store.read(key) == other
    assert bucket.store.stat(key).version != version
    assert bucket.store.read(key, bucket.store.stat(key).version) == other


def test_ranges_are_read_from_first_middle_and_last_byte(bucket: Bucket) -> None:
    data = bytes(range(256)) * 16
    version = bucket.store.create(bucket.key("a"), data)
    for offset, count in ((0, 1), (0, 10), (1000, 7), (4095, 1), (4000, 96), (0, 4096), (5, 0)):
        assert read_range(bucket.store, bucket.key("a"), offset, count) == data[offset : offset + count]
        assert read_range(bucket.store, bucket.key("a"), offset, count, version) == data[offset : offset + count]


def test_a_range_fills_the_given_part_of_a_buffer_and_nothing_else(bucket: Bucket) -> None:
    bucket.store.create(bucket.key("a"), b"0123456789")
    buffer = bytearray(b"-" * 10)
    bucket.store.read_into(bucket.key("a"), 4, memoryview(buffer)[2:5])
    assert buffer == b"--456-----"


@pytest.mark.parametrize(("offset", "count"), [(0, 11), (9, 2), (10, 1), (11, 1), (10**12, 1)])
def test_a_range_beyond_the_end_is_an_error(bucket: Bucket, offset: int, count: int) -> None:
    bucket.store.create(bucket.key("a"), b"0123456789")
    with pytest.raises(StoreError) as caught:
        read_range(bucket.store, bucket.key("a"), offset, count)
    assert not isinstance(caught.value, NotFound)


def test_an_object_larger_than_the_limit_is_not_read(bucket: Bucket) -> None:
    version = bucket.store.create(bucket.key("a"), b"0123456789")
    with pytest.raises(ObjectTooLarge):
        bucket.store.read(bucket.key("a"), limit=9)
    with pytest.raises(ObjectTooLarge):
        bucket.store.read(bucket.key("a"), version, limit=0)
    assert bucket.store.read(bucket.key("a"), limit=10) == b"0123456789"


# Listing


def test_a_listing_is_by_beginning_of_the_key_and_sorted(bucket: Bucket) -> None:
    names = ["b", "a/2", "a/1", "ab/1", "a-b/1", "A/1", "a_b", "a.b", "a/10", "0"]
    for name in names:
        bucket.store.create(bucket.key(name), name.encode())
    assert bucket.listed() == sorted(names)
    assert bucket.listed("a") == ["a-b/1", "a.b", "a/1", "a/10", "a/2", "a_b", "ab/1"]
    assert bucket.listed("a/") == ["a/1", "a/10", "a/2"]
    assert bucket.listed("a/1") == ["a/1", "a/10"]
    assert bucket.listed("ab/1") == ["ab/1"]


def test_a_listing_tells_sizes(bucket: Bucket) -> None:
    for size in (0, 1, 1000):
        bucket.store.create(bucket.key(f"{size:04d}"), bytes(size))
    assert [info.size for info in bucket.store.list(bucket.key(""))] == [0, 1, 1000]


def test_the_empty_prefix_lists_the_whole_bucket(bucket: Bucket) -> None:
    bucket.store.create(bucket.prefix + "-top", b"")
    bucket.store.create(bucket.key("a/b"), b"")
    keys = [info.key for info in bucket.store.list("")]
    assert keys == sorted(keys)
    assert [key for key in keys if key.startswith(bucket.prefix)] == [bucket.prefix + "-top", bucket.key("a/b")]


def test_an_absent_prefix_lists_nothing(bucket: Bucket) -> None:
    assert bucket.listed() == []
    bucket.store.create(bucket.key("a/b"), b"")
    for name in ("b", "a/b/", "a/bc", "a/b/c/d", "b/"):
        assert bucket.listed(name) == []


def test_a_listing_goes_on_over_the_end_of_a_page(bucket: Bucket) -> None:
    names = [f"many/{number:05d}" for number in range(PAGE + 200)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: bucket.store.create(bucket.key(name), b"x"), names))
    assert bucket.listed() == names
    assert bucket.listed("many/01") == names[1000:]


def test_folders_are_the_first_names_of_longer_keys(bucket: Bucket) -> None:
    first, second, top = bucket.prefix, f"{bucket.prefix}-2", f"{bucket.prefix}-top"
    for key in (f"{second}/a", f"{first}/a/b/c", f"{first}/b", top):
        bucket.store.create(key, b"")
    found = list(bucket.store.folders())
    assert found == sorted(found)
    assert [folder for folder in found if folder.startswith(bucket.prefix)] == [first, second]


def test_what_is_under_no_key_of_ours_is_not_listed(bucket: Bucket) -> None:
    for name in ("my notes.txt", ".DS_Store", "a/.hidden", "ключ"):
        bucket.replace(bucket.key(name), b"not ours")
    bucket.replace(f"{bucket.prefix} of somebody else/a", b"not ours")
    assert bucket.listed() == []
    assert [folder for folder in bucket.store.folders() if folder.startswith(bucket.prefix)] == []
    bucket.store.create(bucket.key("a/b"), b"ours")
    assert bucket.listed() == ["a/b"]
    assert [folder for folder in bucket.store.folders() if folder.startswith(bucket.prefix)] == [bucket.prefix]


# Removal, by the retention command alone


def test_what_was_removed_is_gone_and_nothing_else(bucket: Bucket) -> None:
    for name in ("a/b", "a/bc", "a/b.json", "a/c/d"):
        bucket.store.create(bucket.key(name), b"data")
    bucket.store.remove(bucket.key("a/bc"))
    bucket.store.remove(bucket.key("a/c/d"))
    assert bucket.listed() == ["a/b", "a/b.json"]
    assert_absent(bucket, "a/bc")
    assert_absent(bucket, "a/c/d")


def test_what_is_not_there_may_be_removed(bucket: Bucket) -> None:
    bucket.store.create(bucket.key("folder/a"), b"data")
    for name in ("absent", "folder", "folder/b", "folder/a/b"):
        bucket.store.remove(bucket.key(name))
    assert bucket.listed() == ["folder/a"]


def test_a_bucket_of_which_all_was_removed_has_no_folder(bucket: Bucket) -> None:
    bucket.store.create(bucket.key("a/b"), b"data")
    bucket.store.remove(bucket.key("a/b"))
    assert bucket.prefix not in bucket.store.folders()


# Keys


METHODS: dict[str, Callable[[PrunableStore, str], object]] = {
    "create": lambda store, key: store.create(key, b"x"),
    "writer": lambda store, key: stream(store, key, b"x"),
    "read": lambda store, key: store.read(key),
    "stat": lambda store, key: store.stat(key),
    "read_into": lambda store, key: read_range(store, key, 0, 1),
    "remove": lambda store, key: store.remove(key),
    "put": lambda store, key: put(store, key, b"x"),
    "exists": exists,
}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_key_is_refused(bucket: Bucket, method: str) -> None:
    for key in ["", "a/", "a/b/", *NOT_KEYS]:
        with pytest.raises(ValueError, match="not a key"):
            METHODS[method](bucket.store, key)
    assert not [info.key for info in bucket.store.list("") if info.key in NOT_KEYS]


def test_what_begins_no_key_is_refused(bucket: Bucket) -> None:
    for prefix in NOT_KEYS:
        with pytest.raises(ValueError, match="not the beginning of a key"):
            list(bucket.store.list(prefix))


def test_a_key_may_be_long(bucket: Bucket) -> None:
    longest = f"{bucket.prefix}/{'n' * 255}/".ljust(512, "x")
    bucket.store.create(longest, b"data")
    assert bucket.store.read(longest) == b"data"
    assert [info.key for info in bucket.store.list(longest)] == [longest]
    with pytest.raises(ValueError, match="not a key"):
        bucket.store.read(longest + "x")


# The clock


def test_ages_are_by_the_stores_own_clock(ticking_bucket: Bucket) -> None:
    assert ticking_bucket.tick is not None
    ticking_bucket.store.create(ticking_bucket.key("a"), b"")
    ticking_bucket.tick(90.0)
    stream(ticking_bucket.store, ticking_bucket.key("b"), b"")
    ticking_bucket.tick(30.0)
    infos = list(ticking_bucket.store.list(ticking_bucket.key("")))
    assert [info.age for info in infos] == [120.0, 30.0]
    assert infos[0].now == infos[1].now
    assert [ticking_bucket.store.stat(info.key) for info in infos] == infos


def test_a_new_object_is_as_good_as_ageless(bucket: Bucket) -> None:
    bucket.store.create(bucket.key("a"), b"")
    stated = bucket.store.stat(bucket.key("a"))
    assert abs(stated.now - stated.created) < 60
    assert 0 <= stated.age < 60
    assert [info.created for info in bucket.store.list(bucket.key("a"))] == [stated.created]


# Helpers


def test_put_takes_the_same_bytes_for_done_and_others_for_an_error(bucket: Bucket) -> None:
    put(bucket.store, bucket.key("a"), b"data")
    version = bucket.store.stat(bucket.key("a")).version
    put(bucket.store, bucket.key("a"), b"data")
    with pytest.raises(DifferentContent, match=bucket.key("a")):
        put(bucket.store, bucket.key("a"), b"Data")
    assert bucket.store.read(bucket.key("a"), version) == b"data"


def test_exists_tells_an_object_from_a_folder(bucket: Bucket) -> None:
    bucket.store.create(bucket.key("folder/a"), b"")
    assert exists(bucket.store, bucket.key("folder/a"))
    assert not exists(bucket.store, bucket.key("folder"))
