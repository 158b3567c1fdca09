"""Faults between a cloud's SDK and its store: what passes is not noticed, what stays is StoreUnavailable."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Thread

import pytest

from exchange.errors import AlreadyExists, NotFound, StoreError, StoreUnavailable
from exchange.stores import PrunableStore, Writer, open_store, parts, patience
from exchange.stores.azure import AzureStore
from exchange.stores.cloud import CloudStore
from tests.exchange.stores.backends import BACKENDS
from tests.exchange.stores.behind import behind
from tests.exchange.stores.test_contract import read_range, stream
from tests.support import emulators
from tests.support.faulty import (
    CUT,
    DENIED,
    DROPS,
    LOST,
    REFUSED,
    SHORT,
    STALLED,
    STATUSES,
    UNRANGED,
    Fault,
    Faulty,
    faulty,
)

CLOUDS = [name for name in ("gcs", "azure", "s3") if name in BACKENDS]
LEAST_PART = {"gcs": 2**18, "azure": 2**18, "s3": 5 * 2**20}  # bytes
PAGED = ["a", "b/1", "b/2", "c/1"]


@dataclass(frozen=True)
class Line:
    """A store, the proxy through which it is reached, and bytes that take two parts."""

    store: PrunableStore
    proxy: Faulty
    data: bytes

    def succeed_with(self, fault: Fault, act: Callable[[int], object], expected: object) -> int:
        """Let the fault befall the first request of an act, then the second, … until it has no more; count them."""
        for position in range(100):
            self.proxy.plan.extend([None] * position + [fault])
            assert act(position) == expected, f"with {fault} at request {position}"
            if self.proxy.plan:
                self.proxy.plan.clear()
                return position
        raise AssertionError("no end of requests")


@pytest.fixture(params=CLOUDS)
def line(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setattr(patience, "PAUSES", (0.01, 0.02))
    part = LEAST_PART[request.param]
    monkeypatch.setattr(parts, "PART", part)
    monkeypatch.setattr(CloudStore, "single", part)
    monkeypatch.setattr(AzureStore, "single", part)
    with emulators.running(request.param) as url:
        behind(url).make()
        environment = emulators.environment(request.param)
        (upstream,) = {found[0] for value in environment.values() if (found := re.findall(r"http://[\d.]+:\d+", value))}
        with faulty(upstream) as proxy:
            for name, value in environment.items():
                monkeypatch.setenv(name, value.replace(upstream, proxy.url))
            yield Line(open_store(url), proxy, bytes(range(256)) * (part // 256) + b"and one part more")


@pytest.mark.parametrize("fault", [*STATUSES, *DROPS])
def test_a_fault_at_any_request_of_a_reader_is_not_noticed(line: Line, fault: Fault) -> None:
    for key in PAGED:
        line.store.create(key, b"0123456789")
    version = line.store.stat("a").version
    for act, expected in (
        (lambda _: line.store.read("a"), b"0123456789"),
        (lambda _: line.store.read("a", version), b"0123456789"),
        (lambda _: read_range(line.store, "a", 2, 3, version), b"234"),
        (lambda _: line.store.stat("a").size, 10),
        (lambda _: [info.key for info in line.store.list("")], PAGED),
        (lambda _: list(line.store.folders()), ["b", "c"]),
    ):
        assert line.succeed_with(fault, act, expected) > 0


@pytest.mark.parametrize("fault", [*STATUSES, *DROPS])
def test_a_fault_at_any_request_of_a_creator_leaves_one_whole_object_and_its_creator_knows(
    line: Line, fault: Fault
) -> None:
    """Also where the store has created it and only the answer was lost."""

    def create(position: int) -> bytes:
        version = line.store.create(f"created-{position}", b"data")
        return line.store.read(f"created-{position}", version)

    def write(position: int) -> bool:
        stream(line.store, f"streamed-{position}", line.data)
        return line.store.read(f"streamed-{position}") == line.data

    assert line.succeed_with(fault, create, b"data") > 0
    assert line.succeed_with(fault, write, True) > 3


@pytest.mark.parametrize("line", [name for name in CLOUDS if name == "gcs"], indirect=True)
def test_a_store_that_keeps_less_than_it_was_sent_is_sent_the_rest(line: Line) -> None:
    for position in range(1, 4):  # the first request begins the upload, each part is one more
        line.proxy.plan.extend([None] * position + [SHORT])
        stream(line.store, str(position), line.data)
        assert line.store.read(str(position)) == line.data


@pytest.mark.parametrize("line", [name for name in CLOUDS if name == "gcs"], indirect=True)
def test_a_key_is_taken_also_where_the_store_says_that_its_object_may_not_be_deleted(line: Line) -> None:
    """To replace an object takes the right to delete it, which nobody has: the store may look at that first."""
    line.store.create("a", b"theirs")
    line.proxy.always = DENIED
    for act in (lambda: line.store.create("a", b"ours"), lambda: stream(line.store, "a", line.data)):
        with pytest.raises(AlreadyExists):
            act()
    assert line.store.read("a") == b"theirs"


def test_a_store_does_nothing_behind_its_callers_back(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an SDK asks for in a thread of its own takes rights that nobody gave, and goes on when its store is gone."""
    started: list[str] = []
    start = Thread.start
    monkeypatch.setattr(Thread, "start", lambda thread: (started.append(thread.name), start(thread)))
    line.store.create("a", b"data")
    stream(line.store, "b", line.data)
    assert line.store.read("a") == b"data"
    assert line.store.stat("a").size == 4
    assert [info.key for info in line.store.list("")] == ["a", "b"]
    with pytest.raises(NotFound):
        line.store.read("c")
    line.store.remove("b")
    assert [name for name in started if "process_request_thread" not in name] == []  # those serve the proxy


@pytest.mark.parametrize("fault", [*STATUSES, *DROPS])
def test_a_fault_at_a_removal_is_not_noticed(line: Line, fault: Fault) -> None:
    """Also where the store has removed it and only the answer was lost."""
    for key in PAGED:
        line.store.create(key, b"data")
    line.proxy.plan.append(fault)
    line.store.remove("a")
    assert not line.proxy.plan
    assert [info.key for info in line.store.list("")] == PAGED[1:]


@pytest.mark.parametrize("fault", [503, REFUSED, LOST])
def test_a_fault_never_makes_somebody_elses_object_ours(line: Line, fault: Fault) -> None:
    line.store.create("a", b"theirs")
    for act in (lambda: line.store.create("a", b"theirs"), lambda: stream(line.store, "a", line.data)):
        for position in range(3):
            line.proxy.plan.extend([None] * position + [fault])
            with pytest.raises(AlreadyExists):
                act()
            line.proxy.plan.clear()
    assert line.store.read("a") == b"theirs"


@pytest.mark.parametrize("fault", [429, 503, REFUSED, CUT])
def test_a_store_that_does_not_answer_is_unavailable(line: Line, fault: Fault) -> None:
    line.store.create("a", b"data")
    line.proxy.always = fault
    for act in (
        lambda: line.store.create("b", b"data"),
        lambda: stream(line.store, "b", line.data),
        lambda: line.store.read("a"),
        lambda: read_range(line.store, "a", 0, 1),
        lambda: line.store.stat("a"),
        lambda: list(line.store.list("")),
        lambda: list(line.store.folders()),
        lambda: line.store.remove("a"),
    ):
        with pytest.raises(StoreUnavailable, match="did not answer"):
            act()


def test_an_upload_that_dies_half_way_leaves_nothing(line: Line) -> None:
    with pytest.raises(StoreUnavailable), line.store.writer("a", len(line.data)) as out:
        write_and_cut_off(line, out)
    line.proxy.always = None
    assert list(line.store.list("")) == []
    with pytest.raises(NotFound):
        line.store.read("a")


def write_and_cut_off(line: Line, out: Writer) -> None:
    out.write(line.data)
    line.proxy.always = 503


def test_a_store_that_stands_still_is_asked_again(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    line.store.create("a", b"data")
    shorten_timeouts(monkeypatch)
    impatient = open_store(line.store.url)
    line.proxy.plan.append(STALLED)
    assert impatient.read("a") == b"data"
    line.proxy.always = STALLED
    with pytest.raises(StoreUnavailable):
        impatient.stat("a")


def shorten_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.config import Config

    from exchange.stores import azure, gcs, s3

    monkeypatch.setattr(s3, "_SETTINGS", s3._SETTINGS.merge(Config(read_timeout=0.3)))
    monkeypatch.setitem(gcs._ONCE, "timeout", 0.3)
    monkeypatch.setitem(azure._CLIENT, "read_timeout", 0.3)


def test_bytes_of_another_range_are_refused(line: Line) -> None:
    line.store.create("a", b"0123456789")
    line.proxy.always = UNRANGED
    with pytest.raises(StoreError, match=r"bytes 2-4 of a in .*: no range came") as caught:
        read_range(line.store, "a", 2, 3)
    assert type(caught.value) is StoreError


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_is_an_error_that_says_what_to_look_at(line: Line, status: int) -> None:
    line.proxy.always = status
    for act in (
        lambda: line.store.create("a", b"data"),
        lambda: line.store.stat("a"),
        lambda: read_range(line.store, "a", 0, 1),
    ):
        with pytest.raises(StoreError, match=str(status)) as caught:
            act()
        assert type(caught.value) is StoreError
        assert ("rights" in str(caught.value)) == (status != 400)


SECRETS = {
    "AZURE_STORAGE_CONNECTION_STRING": (
        "AccountName=emulator;BlobEndpoint=http://127.0.0.1:9/emulator;SharedAccessSignature=sv=2024&sig=hush"
    ),
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "hush",
    "AWS_SECRET_ACCESS_KEY": "hush",
    "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9/?key=hush",
}


@pytest.mark.parametrize("url", ["gs://bucket", "az://emulator/container", "s3://bucket"])
def test_no_secret_is_in_an_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES", ())
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    store = open_store(url)
    for act in (lambda: store.stat("a"), lambda: read_range(store, "a", 0, 3)):
        with pytest.raises(StoreUnavailable) as caught:
            act()
        assert "hush" not in "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None
