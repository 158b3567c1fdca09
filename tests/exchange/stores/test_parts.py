"""An answer to a request for a range, and the buffer that it is for."""

from io import BytesIO

import pytest
from urllib3.exceptions import ProtocolError

from exchange.errors import StoreError
from exchange.stores.parts import Ranged, fill


class Slow(BytesIO):
    """Gives at most three bytes at a time."""

    def readinto(self, buffer: memoryview, /) -> int:
        return super().readinto(buffer[:3])


def filled(content_range: str, body: bytes, size: int = 10) -> bytes:
    buffer = bytearray(size)
    count = fill(memoryview(buffer), 100, Ranged(content_range, Slow(body)), "bytes 100-109 of a")
    return bytes(buffer[:count])


def test_a_buffer_is_filled_in_as_many_steps_as_it_takes() -> None:
    assert filled("bytes 100-109/1000", b"0123456789") == b"0123456789"


def test_of_an_object_that_ends_before_there_is_what_there_is() -> None:
    assert filled("bytes 100-103/104", b"0123") == b"0123"


@pytest.mark.parametrize(
    "content_range",
    ["", "bytes 0-9/1000", "bytes 101-110/1000", "bytes 100-110/1000", "bytes 100-99/1000", "bytes */1000"],
)
def test_another_range_than_was_asked_for_is_refused(content_range: str) -> None:
    with pytest.raises(StoreError, match=r"bytes 100-109 of a: .* came"):
        filled(content_range, b"0123456789")


def test_a_body_that_ends_before_its_range_does_is_no_answer() -> None:
    with pytest.raises(ProtocolError, match="3 bytes did not come"):
        filled("bytes 100-109/1000", b"0123456")
