"""One object behind three clouds' protocols, as far as a reader needs them: `python -m benchmarks.range_server FILE`.

It answers every GET with the range that was asked for, out of the page cache, so that what is measured is the reader;
whatever the name, the object is FILE. It prints its URL, and ends with its standard input.
"""

import json
import re
import socketserver
import sys
from email.utils import formatdate
from pathlib import Path
from threading import Thread
from typing import BinaryIO

_TIME = "2026-01-01T00:00:00.000Z"


class _Connection(socketserver.StreamRequestHandler):
    path: Path

    def handle(self) -> None:
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            while line := self.rfile.readline().decode():
                headers = {}
                while header := self.rfile.readline().decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                self._answer(line.split(), headers, file, size)

    def _answer(self, line: list[str], headers: dict[str, str], file: BinaryIO, size: int) -> None:
        method, target = line[:2]
        if target.startswith("/storage/v1/") and "alt=media" not in target:
            told = {"name": "object", "bucket": "bucket", "generation": "1", "size": str(size), "timeCreated": _TIME}
            self._send(200, "application/json", len(body := json.dumps(told).encode()))
            self.wfile.write(body)
            self.wfile.flush()
            return
        begin, last = 0, size - 1
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("x-ms-range") or headers.get("range") or ""):
            begin, last = int(wanted[1]), min(int(wanted[2]), size - 1)
        content_range = f"Content-Range: bytes {begin}-{last}/{size}\r\n" if wanted else ""
        self._send(206 if wanted else 200, "application/octet-stream", last + 1 - begin, content_range)
        self.wfile.flush()
        if method == "GET":
            self.connection.sendfile(file, begin, last + 1 - begin)

    def _send(self, status: int, kind: str, length: int, more: str = "") -> None:
        now, then = formatdate(usegmt=True), formatdate(0, usegmt=True)
        self.wfile.write(
            f"HTTP/1.1 {status} OK\r\nDate: {now}\r\nLast-Modified: {then}\r\n"
            f'Content-Type: {kind}\r\nContent-Length: {length}\r\nETag: "1"\r\nx-goog-generation: 1\r\n'
            f"x-ms-blob-type: BlockBlob\r\n{more}\r\n".encode()
        )


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    handler = type("Connection", (_Connection,), {"path": Path(sys.argv[1]), "wbufsize": -1})
    with _Server(("127.0.0.1", 0), handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
