"""A proxy that stands between an SDK and an emulator and misbehaves by plan."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TypeVar
from urllib.parse import urlsplit

# What may befall one request. A number is an answer of the store's own, before it has done anything.
Fault = int | str | None
REFUSED = "refused"  # the connection is dropped before the request has reached the store
LOST = "lost"  # the store does as it is asked; its answer is lost
CUT = "cut"  # half of the answer arrives
UNRANGED = "unranged"  # the answer says nothing of the range that was asked for
SHORT = "short"  # the store keeps half of a range that is sent to it, and says so
DENIED = "denied"  # where an object is there, the store says that it may not be deleted
STALLED = "stalled"  # nothing happens for a second
DELAYED = "delayed"  # the store is asked a second later
STATUSES = (429, 500, 503)
DROPS = (REFUSED, LOST, CUT)


class Faulty:
    """The proxy.

    Attributes:
        plan: what befalls the next requests; those after the last go well.
        always: befalls every request, if set.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.plan: deque[Fault] = deque()
        self.always: Fault = None
        self.server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"faulty": self}))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def next(self) -> Fault:
        return self.always or (self.plan.popleft() if self.plan else None)


_Proxy = TypeVar("_Proxy", bound=Faulty)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is nothing to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: else each answer waits 40 ms for the acknowledgement of its head
    faulty: Faulty

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faulty.next()
        if fault in (STALLED, DELAYED):
            time.sleep(1.0)
        if fault in (REFUSED, STALLED):
            self.close_connection = True
        elif isinstance(fault, int):
            self._answer(fault, [], b"")
        else:
            self._forward(body, fault)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the library's names

    def handle_expect_100(self) -> bool:
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _forward(self, body: bytes, fault: Fault) -> None:
        connection = http.client.HTTPConnection(self.faulty.upstream, timeout=30)
        headers = dict(self.headers)
        if fault == SHORT and (sent := re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))):
            body, begin = body[: len(body) // 2], int(sent[1])
            headers["Content-Range"] = f"bytes {begin}-{begin + len(body) - 1}/{sent[2]}"
            headers["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if fault == DENIED and answer.status == 412:
            text = {
                "message": "me@example does not have storage.objects.delete access to the Google Cloud Storage object."
            }
            self._answer(
                403, [("Content-Type", "application/json")], json.dumps({"error": {"code": 403} | text}).encode()
            )
        elif fault == LOST or (fault == CUT and not data):
            self.close_connection = True
        else:
            kept = [each for each in answer.getheaders() if fault != UNRANGED or each[0].lower() != "content-range"]
            self._answer(answer.status, kept, data, fault == CUT)

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False) -> None:
        kept = [
            each for each in headers if each[0].lower() not in ("connection", "transfer-encoding", "content-length")
        ]
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(data)))
        self.send_response_only(status)
        for name, value in [*kept, ("Content-Length", length)]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(proxy: _Proxy) -> Iterator[_Proxy]:
    """Have the proxy stand there within."""
    thread = Thread(target=proxy.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield proxy
    finally:
        with suppress(OSError):
            proxy.server.shutdown()
            proxy.server.server_close()
        thread.join()


@contextmanager
def faulty(upstream: str) -> Iterator[Faulty]:
    with serving(Faulty(upstream)) as proxy:
        yield proxy
