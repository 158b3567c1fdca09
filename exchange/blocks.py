"""Reading weight files a block at a time, at one version: memory that depends on the block, not on the model.

A `Piece` is a run of elements of one tensor, named independently of any file; two files that hold the same tensors in
another order or dtype are read in step by the same pieces.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exchange import tensors
from exchange.stores import Store
from exchange.tensors import Layout, Tensor

_DIGEST_BLOCK = 2**23  # bytes: few requests, little memory


@dataclass(frozen=True)
class WeightFile:
    """A weight file in a store, pinned to the version whose layout was read."""

    store: Store
    key: str
    version: str
    layout: Layout

    def read_head(self) -> bytes:
        """Return the bytes before the first tensor's; raises as `read_raw`."""
        data = bytearray(self.layout.data_begin)
        self.store.read_into(self.key, 0, memoryview(data), self.version)
        return bytes(data)

    def read_raw(self, pieces: Iterable["Piece"], buffer: memoryview | None = None) -> Iterator[tuple[str, memoryview]]:
        """Yield the bytes of `pieces` in order, each run with its dtype; what lies side by side comes in one request.

        Args:
            buffer: where to read to, again and again: what was yielded holds until the next is. By default each run has
                memory of its own, which costs as much as the reading.

        Raises:
            VersionMismatch: the file was replaced since its layout was read.
        """
        for dtype, begin, end in _runs(pieces, self.layout):
            data = memoryview(bytearray(end - begin)) if buffer is None else buffer[: end - begin]
            self.store.read_into(self.key, self.layout.data_begin + begin, data, self.version)
            yield dtype, data

    def read(self, pieces: Iterable["Piece"], buffer: memoryview | None = None) -> Iterator[NDArray[Any]]:
        """Yield the elements of `pieces` in order, 1-D; arguments and errors as of `read_raw`."""
        for dtype, data in self.read_raw(pieces, buffer):
            yield tensors.decode(dtype, data)


@dataclass(frozen=True)
class Piece:
    """Elements start…start+count of the tensor called `name`."""

    name: str
    start: int
    count: int


def open_weights(
    store: Store,
    key: str,
    version: str | None = None,
    max_header_bytes: int = tensors.MAX_HEADER_BYTES,
    alike: tensors.Alike | None = None,
) -> WeightFile:
    """Return the file at `key`, at `version` or as it is now; `alike` as `tensors.read_layout` has it.

    Raises:
        NotFound, VersionMismatch: from the store.
        InvalidTensorFile: the header is unsound.
    """
    info = store.stat(key)
    pinned = version or info.version

    def read(offset: int, count: int) -> bytes:
        data = bytearray(count)
        store.read_into(key, offset, memoryview(data), pinned)
        return bytes(data)

    return WeightFile(store, key, pinned, tensors.read_layout(read, info.size, max_header_bytes, alike))


def digest(file: WeightFile) -> str:
    """Return the SHA-256 of the whole file, read at its version."""
    return digest_object(file.store, file.key, file.version, file.layout.size)


def digest_object(store: Store, key: str, version: str, size: int) -> str:
    """Return the SHA-256 of an object of `size` bytes, whatever it holds; raises NotFound, VersionMismatch."""
    found = hashlib.sha256()
    for begin in range(0, size, _DIGEST_BLOCK):
        data = bytearray(min(_DIGEST_BLOCK, size - begin))
        store.read_into(key, begin, memoryview(data), version)
        found.update(data)
    return found.hexdigest()


def stripes(found: Sequence[Tensor], elements: int) -> Iterator[list[Piece]]:
    """Yield the tensors' elements, in order, in stripes of at most `elements`; empty tensors are left out."""
    stripe: list[Piece] = []
    room = elements
    for tensor in found:
        start = 0
        while start < tensor.count:
            count = min(room, tensor.count - start)
            stripe.append(Piece(tensor.name, start, count))
            start, room = start + count, room - count
            if room == 0:
                yield stripe
                stripe, room = [], elements
    if stripe:
        yield stripe


def _runs(pieces: Iterable[Piece], layout: Layout) -> Iterator[tuple[str, int, int]]:
    """Yield the dtype and the offsets, begin and end, of what lies side by side."""
    dtype, begin, end = "", 0, 0
    for piece in pieces:  # as many as there are tensors, for every stripe of every update
        tensor = layout.tensors[piece.name]
        itemsize = tensors.NUMPY_DTYPES[tensor.dtype].itemsize
        start = tensor.begin + piece.start * itemsize
        if (dtype, end) != (tensor.dtype, start):
            if end > begin:
                yield dtype, begin, end
            dtype, begin = tensor.dtype, start
        end = start + piece.count * itemsize
    if end > begin:
        yield dtype, begin, end


def read_all(file: WeightFile, pieces: Sequence[Piece]) -> NDArray[np.float64]:
    """Return the elements of `pieces` in order, 1-D, float64."""
    values = np.empty(sum(piece.count for piece in pieces))
    start = 0
    for block in file.read(pieces):
        values[start : start + len(block)] = block
        start += len(block)
    return values
