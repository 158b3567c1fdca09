"""Calls to functions, which can be broken off at any point."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import RLock
from types import SimpleNamespace
from typing import Any, cast

from fedbucket.emulators.calls import Caller, Failed, Request
from fedbucket.emulators.hosts import Host

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


@contextmanager
def called(caller: Caller) -> Iterator[tuple[socket.socket, Future[tuple[int, Failed | None]]]]:
    """Post from another thread, to a host that has read the request and not answered."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as other:
        host = cast(Host, SimpleNamespace(port=server.getsockname()[1]))
        answer = other.submit(caller.post, host, Request("/", {}, {}, timeout=30))
        connection, _ = server.accept()
        with connection:
            assert connection.recv(2**16)
            yield connection, answer


def test_who_waits_for_an_answer_gets_none_once_calls_are_broken_off() -> None:
    caller = Caller()
    with called(caller) as (_, answer):
        caller.break_off()
        assert answer.result(timeout=10) == (0, "lost")


def test_an_answer_that_was_just_read_is_nothing_to_break_off() -> None:
    caller: Any = Caller()
    caller._lock = RLock()  # held here, so that the other thread stands right behind the end of its answer
    with called(caller) as (connection, answer):
        with caller._lock:
            connection.sendall(ANSWER)
            (waiting,) = caller._open
            until = time.monotonic() + 10
            while waiting.fileno() != -1 and time.monotonic() < until:
                time.sleep(0.001)
            assert waiting.fileno() == -1
            caller.break_off()
        assert answer.result(timeout=10) == (200, None)
