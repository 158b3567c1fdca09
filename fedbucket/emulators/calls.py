"""Calling functions in their hosts over HTTP."""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from threading import Lock
from typing import Any, Literal

from fedbucket.emulators.hosts import Host

Failed = Literal["raised", "lost", "nobody"]
"""The function answered with an error; it was called and there was no answer; nobody listens on its port."""


@dataclass(frozen=True)
class Request:
    """What is posted to a host; `timeout` is in seconds."""

    path: str
    headers: Mapping[str, str]
    body: Any
    timeout: float


class Caller:
    """Calls from any number of threads, which can all be broken off."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._over = False
        self._open: set[socket.socket] = set()

    def post(self, host: Host, request: Request) -> tuple[int, Failed | None]:
        """Post to a host and wait for its answer; return the status (0 without one) and what failed."""
        try:
            with self._connected(host, request.timeout) as connection:
                connection.request("POST", request.path, json.dumps(request.body).encode(), dict(request.headers))
                with connection.getresponse() as response:
                    response.read()
                return response.status, None if response.status < 300 else "raised"
        except ConnectionRefusedError:
            return 0, "nobody"
        except (OSError, HTTPException):
            return 0, "lost"

    def break_off(self) -> None:
        """Have whoever waits for an answer get none, now and ever after."""
        with self._lock:
            self._over = True
            for connection in self._open:
                _shut(connection)

    @contextmanager
    def _connected(self, host: Host, timeout: float) -> Iterator[HTTPConnection]:
        connection = HTTPConnection("127.0.0.1", host.port, timeout=timeout)
        connection.connect()
        opened: socket.socket = connection.sock
        with self._lock:
            self._open.add(opened)
            if self._over:
                _shut(opened)
        try:
            yield connection
        finally:
            with self._lock:
                self._open.discard(opened)
            connection.close()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # its answer has just been read, or its host is gone: nobody waits on it any more
        connection.shutdown(socket.SHUT_RDWR)
