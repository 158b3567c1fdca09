"""gcp-storage-emulator with what it lacks of Cloud Storage: `python -m fedbucket.emulators.gcs PORT [FOLDER]`.

The emulator ignores every precondition, serves one request at a time from a short queue, lists everything on one page
and tells no generation with a download. This guard stands in front of its request handler: one lock over the check of
the preconditions and what they guard, a thread a connection, pages, generations, and sessions that can be cancelled.
Of every object that is created or overwritten it prints the resource, one JSON line each: what a notification holds.
With a folder, what was acknowledged is there again when the process has been killed and started anew; the emulator's
own way to keep things loses all of them where it is killed while it writes them down.
"""

import json
import logging
import re
import sqlite3
import sys
from collections import Counter
from functools import partial
from http.server import ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

from fedbucket.emulators.serving import serve

PAGE = 1000  # objects of a listing, as in Cloud Storage
_OBJECT = re.compile(r"(?:/storage/v1|/download/storage/v1)?/b/([^/]+)/o/(.+)")
_UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o")
_LISTING = re.compile(r"(?:/storage/v1)?/b/([^/]+)/o")
_SERVED = "/emulator/served"
_Target = tuple[str, str, dict[str, str]]  # bucket, name, query


class Guard(RequestHandler):  # type: ignore[misc]
    """One connection."""

    protocol_version = "HTTP/1.1"
    rfile: BinaryIO
    wfile: BinaryIO
    lock: ClassVar = Lock()
    served: ClassVar = Counter[str]()  # requests, and bytes of bodies in and of answers out: GET /emulator/served
    sessions: ClassVar[dict[str, _Target]] = {}  # a resumable upload is held to the conditions it began with

    def do_GET(self) -> None:
        self._guard(super().do_GET)

    def do_POST(self) -> None:
        self._guard(super().do_POST)

    def do_PUT(self) -> None:
        self._guard(super().do_PUT)

    def do_PATCH(self) -> None:
        self._guard(super().do_PATCH)

    def do_DELETE(self) -> None:
        self._guard(super().do_DELETE)

    def _guard(self, serve: Any) -> None:
        """Read the whole request, answer it into memory under the lock, and send the answer without it."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # the sender is gone: what it sent is no object
            self.close_connection = True
            return
        connection, answer = (self.rfile, self.wfile), BytesIO()
        self.rfile, self.wfile = BytesIO(body), answer
        try:
            with self.lock:
                self._answer(serve, body)
        finally:
            self.rfile, self.wfile = connection
        self.wfile.write(answer.getvalue())
        with self.lock:
            self.served.update({"requests": 1, "bytes_in": length, "bytes_out": len(answer.getvalue())})

    def _answer(self, serve: Any, body: bytes) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        session = query.get("upload_id", "")
        if url.path == _SERVED:
            self._say(200, dict(self.served))
        elif self.command == "GET" and (match := _LISTING.fullmatch(url.path)):
            self._list(match[1], query)
        elif self.command == "DELETE" and session:
            self.storage.resumable.pop(session, None)
            self._say(499, {})
        elif (target := self.sessions.get(session) or _target(url.path, query, body)) is None:
            serve()
        elif (status := self._refusal(target)) and not self.headers.get("Content-Range", "").startswith("bytes */"):
            self._say(status, {"error": {"code": status, "message": "conditionNotMet"}})
        else:
            before = set(self.storage.resumable)
            serve()
            self.sessions.update((new, target) for new in set(self.storage.resumable) - before)

    def _refusal(self, target: _Target) -> int:
        bucket, name, query = target
        there = self.storage.objects.get(bucket, {}).get(name, {})
        for kind in ("generation", "metageneration"):
            found, word = there.get(kind, "0"), kind.capitalize()
            if query.get(f"if{word}Match", found) != found:
                return 412
            if query.get(f"if{word}NotMatch") == found:
                return 304 if self.command == "GET" else 412
        stale = self.command == "GET" and query.get("generation", there.get("generation")) != there.get("generation")
        return 404 if stale else 0

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        if bucket not in self.storage.buckets:
            self._say(404, {"error": {"code": 404, "message": "no such bucket"}})
            return
        files, prefixes = self.storage.get_file_list(bucket, query.get("prefix"), query.get("delimiter"))
        found = [*((file["name"], file) for file in files), *((prefix, None) for prefix in prefixes)]
        found = sorted((each for each in found if each[0] > query.get("pageToken", "")), key=lambda each: each[0])
        count = min(int(query.get("maxResults", PAGE)), PAGE)
        page: dict[str, Any] = {"kind": "storage#objects"}
        page["items"] = [file for _, file in found[:count] if file is not None]
        page["prefixes"] = [name for name, file in found[:count] if file is None]
        if len(found) > count:
            page["nextPageToken"] = found[count - 1][0]
        self._say(200, page)

    def _say(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_header(self, keyword: str, value: str) -> None:
        if keyword == "Range" and value == "bytes=0-0":  # of a session that has received nothing yet
            return
        super().send_header(keyword, value)

    def end_headers(self) -> None:
        url = urlsplit(self.path)
        if self.command == "GET" and (match := _OBJECT.fullmatch(url.path)):
            there = self.storage.objects.get(match[1], {}).get(unquote(match[2]), {})
            for kind in {"generation", "metageneration"} & set(there):
                self.send_header(f"X-Goog-{kind.capitalize()}", there[kind])
        super().end_headers()


def _target(path: str, query: dict[str, str], body: bytes) -> _Target | None:
    if match := _OBJECT.fullmatch(path):
        return match[1], unquote(match[2]), query
    if not (match := _UPLOAD.fullmatch(path)):
        return None
    if "name" in query:
        return match[1], query["name"], query
    # Both a resumable upload's first request and a multipart body begin with the object's resource.
    resource, _ = json.JSONDecoder().raw_decode(body[body.index(b"{") :][: 2**16].decode(errors="replace"))
    return match[1], resource["name"], query


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class _Memory(Storage):  # type: ignore[misc]
    """The emulator's storage, telling of each object, and without a description of the whole at each change."""

    def create_file(
        self, bucket_name: str, file_name: str, content: bytes, file_obj: dict[str, Any], file_id: str | None = None
    ) -> None:
        super().create_file(bucket_name, file_name, content, file_obj, file_id)
        print(json.dumps(file_obj), flush=True)

    def _write_config_to_file(self) -> None:
        pass


class _Kept(_Memory):
    """The same, with buckets and objects also in a database; what an unfinished upload has sent is not."""

    def __init__(self, folder: Path) -> None:
        super().__init__(use_memory_fs=True)
        self._database = sqlite3.connect(folder / "gcs.sqlite", isolation_level=None, check_same_thread=False)
        self._database.execute("pragma synchronous = off")  # killed is not without power: the system has it
        self._database.execute("create table if not exists buckets (name primary key, resource)")
        self._database.execute(
            "create table if not exists objects (bucket, name, resource, content, primary key (bucket, name))"
        )
        for name, resource in self._database.execute("select * from buckets"):
            self.buckets[name] = json.loads(resource)
        for bucket, name, resource, content in self._database.execute("select * from objects"):
            Storage.create_file(self, bucket, name, content, json.loads(resource))

    def create_bucket(self, bucket_name: str, bucket_obj: dict[str, Any]) -> Any:
        self._database.execute("replace into buckets values (?, ?)", (bucket_name, json.dumps(bucket_obj)))
        return super().create_bucket(bucket_name, bucket_obj)

    def create_file(
        self, bucket_name: str, file_name: str, content: bytes, file_obj: dict[str, Any], file_id: str | None = None
    ) -> None:
        row = (bucket_name, file_name, json.dumps(file_obj), content)
        self._database.execute("replace into objects values (?, ?, ?, ?)", row)
        super().create_file(bucket_name, file_name, content, file_obj, file_id)

    def _delete_file(self, bucket_name: str, file_name: str) -> None:
        self._database.execute("delete from objects where bucket = ? and name = ?", (bucket_name, file_name))
        super()._delete_file(bucket_name, file_name)


def main() -> None:
    logging.disable(logging.CRITICAL)
    port, *folder = sys.argv[1:]
    storage = _Kept(Path(folder[0])) if folder else _Memory(use_memory_fs=True)
    serve(_Server(("127.0.0.1", int(port)), partial(Guard, storage)))


if __name__ == "__main__":
    main()
