"""What a cloud function does with a delivery: acknowledge it, or raise so that it comes again; and what it logs."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from exchange.errors import (
    CohortUnreadable,
    ConsentRefused,
    FedbucketError,
    InvalidDocument,
    InvalidEvent,
    InvalidTensorFile,
    StoreUnavailable,
)
from exchange.events import ObjectCreated, from_event_grid, parse_json
from exchange.functions import STEPS, JsonLines, Side, log_as_json, on_object, on_timer
from exchange.keys import parse

UPDATE = ObjectCreated("parent", "readmission/updates/hospital-a/000007.safetensors", "event-1", "1")


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The log as a platform takes it: a line a record."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(before)


def side(handle: Callable[[ObjectCreated], None] = lambda _: None, client: str | None = None) -> Callable[[], Side]:
    return lambda: Side(client, "gs://parent", handle, lambda _: None)


def fail(error: Exception) -> Callable[[ObjectCreated], None]:
    def handle(_: ObjectCreated) -> None:
        raise error

    return handle


def test_an_object_is_handled_and_its_line_says_what_belongs_to_what(lines: Any) -> None:
    handled: list[ObjectCreated] = []
    on_object("gs", lambda: [UPDATE], side(handled.append))
    assert handled == [UPDATE]
    (line,) = lines()
    assert (
        line.items()
        >= {
            "severity": "INFO",
            "message": "record done",
            "step": "record",
            "federation": "readmission",
            "round": 7,
            "client": "hospital-a",
            "event": "event-1",
            "outcome": "done",
        }.items()
    )
    assert line["seconds"] >= 0
    assert line["time"].endswith("Z")


def test_a_line_written_by_a_handler_bears_its_step(lines: Any) -> None:
    ticket = ObjectCreated("parent", "readmission/inbox/000003.json", "event-2", "1")
    on_object("gs", lambda: [ticket], side(lambda _: logging.getLogger("deep").warning("so %s", "far"), "hospital-b"))
    said, done = lines()
    assert (said["message"], said["severity"]) == ("so far", "WARNING")
    for line in (said, done):
        assert (line["step"], line["round"], line["client"]) == ("train", 3, "hospital-b")
    logging.getLogger("deep").warning("afterwards")
    assert "step" not in lines()[-1]


@pytest.mark.parametrize("error", [StoreUnavailable("no answer"), CohortUnreadable("gone"), ValueError("a mistake")])
def test_what_may_succeed_later_raises(error: Exception, lines: Any) -> None:
    with pytest.raises(type(error)):
        on_object("gs", lambda: [UPDATE], side(fail(error)))
    (line,) = lines()
    assert (line["severity"], line["outcome"]) == ("ERROR", "failed")
    assert line["message"] == f"record failed: {type(error).__name__}: {error}"


@pytest.mark.parametrize("error", [InvalidDocument("no JSON"), InvalidTensorFile("no tensors")])
def test_what_never_can_succeed_is_logged_once_and_acknowledged(error: FedbucketError, lines: Any) -> None:
    on_object("gs", lambda: [UPDATE], side(fail(error)))
    errors = [line for line in lines() if line["severity"] == "ERROR"]
    assert len(errors) == 1
    assert str(error) in errors[0]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"{}", b"7"])
def test_a_message_that_names_no_object_is_logged_once_and_acknowledged(body: bytes, lines: Any) -> None:
    def never() -> Side:
        raise AssertionError("the stores were opened")

    on_object("az", lambda: from_event_grid(parse_json(body)), never)
    (line,) = lines()
    assert "InvalidEvent" in line["message"]


def test_a_key_that_wakes_nothing_opens_no_store(lines: Any) -> None:
    def never() -> Side:
        raise AssertionError("the stores were opened")

    for key in ("readmission/public/federation.json", "readmission/rounds/000001/cohort.json", "a/../b", "notes.txt"):
        on_object("gs", lambda key=key: [ObjectCreated("parent", key, "event")], never)  # type: ignore[misc]
    assert lines() == []


def test_an_object_in_another_bucket_is_not_handled(lines: Any) -> None:
    def never(_: ObjectCreated) -> None:
        raise AssertionError("handled")

    on_object("gs", lambda: [ObjectCreated("other", UPDATE.key, "event")], side(never))
    on_object("az", lambda: [UPDATE], side(never))
    assert [line["severity"] for line in lines()] == ["ERROR", "INFO"] * 2


def test_the_url_of_the_bucket_may_end_with_a_slash() -> None:
    handled: list[ObjectCreated] = []
    on_object("gs", lambda: [UPDATE], lambda: Side(None, "gs://parent/", handled.append, lambda _: None))
    assert handled == [UPDATE]


def test_the_steps_are_those_of_the_loop() -> None:
    keys = ["public/models/000001.safetensors", "updates/a/000001.withdrawn.json", "rounds/000001/receipts/a.json"]
    assert [STEPS[type(parse(f"readmission/{key}"))] for key in keys] == ["publish", "record", "aggregate"]


def test_a_timer_sweeps_under_an_id_of_its_own_and_fails_loudly(lines: Any) -> None:
    firings: list[str] = []

    def sweep(firing: str) -> None:
        firings.append(firing)
        if len(firings) == 3:
            inner = ExceptionGroup("trial", [ConsentRefused("by name")])
            raise ExceptionGroup("sweep", [StoreUnavailable("no answer"), inner])

    swept = lambda: Side("hospital-a", None, lambda _: None, sweep)  # noqa: E731
    on_timer(swept)
    on_timer(swept)
    with pytest.raises(ExceptionGroup):
        on_timer(swept)
    assert len(set(firings)) == 3
    assert [(line["message"], line["client"]) for line in lines()] == [
        ("sweep done", "hospital-a"),
        ("sweep done", "hospital-a"),
        ("sweep failed: StoreUnavailable: no answer; ConsentRefused: by name", "hospital-a"),
    ]


def test_an_exception_is_one_line_with_its_stack(lines: Any) -> None:
    try:
        raise InvalidEvent("line one\nline two")
    except InvalidEvent:
        logging.getLogger("flask").exception("failed")
    (line,) = lines()
    assert "line two" in line["stack_trace"]


def test_the_log_of_a_process_is_json_on_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    chatty = logging.getLogger("azure")
    monkeypatch.setattr(chatty, "level", chatty.level)
    log_as_json()
    root.info("ä %d", 7)
    chatty.info("a header a line")
    assert json.loads(out.getvalue())["message"] == "ä 7"
