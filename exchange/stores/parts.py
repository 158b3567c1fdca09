"""Objects in parts, on the way up and on the way down."""

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from urllib3.exceptions import ProtocolError

from exchange.errors import StoreError

PART = 8 * 2**20  # bytes: above S3's least part of 5 MiB, a multiple of GCS's 256 KiB
_PIECE = 2**18  # bytes: what urllib3 hands over before it goes into the buffer stays in a core's second-level cache


class Upload(Protocol):
    """An upload in parts. The last part or `finish` creates the object; a call that failed may be made again."""

    def send(self, part: bytes) -> None:
        """Upload the next part."""

    def finish(self) -> object:
        """Create the object, if the last part has not."""

    def abort(self) -> None:
        """Give the upload up."""


class Parts:
    """Cuts what is written into parts; the last one is held back, so that nothing is created before all is there.

    Args:
        size: bytes announced.
        send: takes each part but the last; without it all is held.
    """

    def __init__(self, size: int, send: Callable[[bytes], object] | None = None) -> None:
        self._size, self._send = size, send
        self._count, self._held = 0, bytearray()

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self._count += len(data)
        if self._count > self._size:  # finish() will refuse them: no need to hold them
            return
        self._held += data
        while self._send and len(self._held) > PART:
            self._send(bytes(self._held[:PART]))
            del self._held[:PART]

    def finish(self, what: str) -> bytes:
        """Return the last part; raises StoreError unless as many bytes were written as announced."""
        if self._count != self._size:
            raise StoreError(f"{what}: {self._size} bytes announced, {self._count} written")
        return bytes(self._held)


class Body(Protocol):
    """What comes after an answer's head."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer as far as there is something; return the number of bytes, 0 at the end."""


class Ranged(NamedTuple):
    """An answer to a request for a range: its `Content-Range`, and its body."""

    content_range: str
    body: Body


def fill(buffer: memoryview, offset: int, came: Ranged, what: str) -> int:
    """Read an answer into `buffer`, whose first byte is the object's at `offset`; return the number of bytes.

    It is what the buffer takes, or all to the object's end. Nothing is copied as often as in an SDK's download.

    Raises:
        StoreError: it is not the range that was asked for.
        ProtocolError: the body ends before the range does.
    """
    told = re.fullmatch(r"bytes (\d+)-(\d+)/\d+", came.content_range)
    if not told or int(told[1]) != offset or not offset <= int(told[2]) < offset + len(buffer):
        raise StoreError(f"{what}: {came.content_range or 'no range'} came; is there a proxy that changes ranges?")
    rest = buffer[: int(told[2]) + 1 - offset]
    length = len(rest)
    while rest:
        if not (count := came.body.readinto(rest[:_PIECE])):
            raise ProtocolError(f"{what}: {len(rest)} bytes did not come")
        rest = rest[count:]
    return length
