"""Objects in parts, on the way up and on the way down."""

from collections.abc import Callable
from typing import Protocol

from exchange.errors import StoreError

PART = 8 * 2**20  # bytes: above S3's least part of 5 MiB, a multiple of GCS's 256 KiB


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


class Sink:
    """A file that fills a buffer."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer, self.filled = buffer, 0

    def write(self, data: bytes, /) -> int:
        if self.filled + len(data) > len(self._buffer):
            raise StoreError(f"{len(self._buffer)} bytes asked for, more came")
        self._buffer[self.filled : self.filled + len(data)] = data
        self.filled += len(data)
        return len(data)
