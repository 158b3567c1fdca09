"""Weight files: the safetensors header and layout, read by ranges and held to stricter rules than most readers hold it.

A file is: 8 bytes, the header's length (little endian); the header, JSON: name → {dtype, shape, data_offsets}, and
`__metadata__`, text to text; then the tensors' bytes, little endian, row by row. Here the tensors must lie end to end
from the first byte of the data to the file's last. Format: https://huggingface.co/docs/safetensors.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exchange import strict_json
from exchange.errors import InvalidTensorFile

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
METADATA = "__metadata__"
_METADATA_FIRST = f'{{"{METADATA}":'.encode()
_MAX_DIMENSIONS = 32  # of an array in NumPy 1

# BF16 is unknown to NumPy: its bits are carried as uint16 and are the upper half of a float32's.
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
FLOATING = frozenset({"F64", "F32", "F16", "BF16"})
LARGEST = {"F64": 1.7976931348623157e308, "F32": 3.4028234663852886e38, "F16": 65504.0, "BF16": 3.3895313892515355e38}
_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items() if name != "BF16"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies: `begin` and `end` are byte offsets in the file's data, after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def count(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether it travels; integer tensors stay with the global model."""
        return self.dtype in FLOATING


@dataclass(frozen=True)
class Layout:
    """A file's header: its tensors in the order of their bytes, its metadata, and its size in bytes."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    data_begin: int
    size: int

    @property
    def floating(self) -> list[Tensor]:
        """The tensors that travel, in the order of their bytes."""
        return [tensor for tensor in self.tensors.values() if tensor.floating]


Alike = dict[bytes, dict[str, Tensor]]  # the part of a header that describes the tensors → those


def read_layout(
    read: Callable[[int, int], bytes],
    size: int,
    max_header_bytes: int = MAX_HEADER_BYTES,
    alike: Alike | None = None,
) -> Layout:
    """Return the layout of a file of `size` bytes, of which `read(offset, count)` gives a range.

    Args:
        alike: what earlier headers said of their tensors; it is added to. A file that says the same gets the earlier
            one's very object, unparsed: most clients' files are alike, and a description takes 400 bytes a tensor.

    Raises:
        InvalidTensorFile: anything is unsound; the message says what.
    """
    if size < 8:
        raise InvalidTensorFile(f"expected a safetensors file, at least 8 bytes; this one has {size}")
    length, limit = int.from_bytes(read(0, 8), "little"), min(max_header_bytes, size - 8)
    if not 2 <= length <= limit:
        raise InvalidTensorFile(f"header of {length} bytes, expected 2…{limit}: not a safetensors file, or truncated")
    metadata, tensors = _parse_header(read(8, length), {} if alike is None else alike)
    _check_contiguous(tensors.values(), size - 8 - length)
    return Layout(tensors, metadata, 8 + length, size)


def layout_of(data: bytes) -> Layout:
    """Return the layout of a whole file in memory; raises InvalidTensorFile."""
    return read_layout(lambda offset, count: data[offset : offset + count], len(data))


def encode_header(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str], order: Sequence[str] | None = None
) -> bytes:
    """Return the bytes before the data, for tensors given as name → (dtype, shape).

    The tensors' bytes follow in `order`, by default that of `file_order`. The same arguments give the same bytes.
    """
    entries: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name in order or file_order(tensors):
        dtype, shape = tensors[name]
        end = offset + prod(shape) * NUMPY_DTYPES[dtype].itemsize
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)  # aligns the data, as the format asks for
    return len(header).to_bytes(8, "little") + header


def size_of(header: bytes) -> int:
    """Return the size of the whole file that begins with this `encode_header`."""
    entries = json.loads(header[8:])
    return len(header) + max(
        (entry["data_offsets"][1] for name, entry in entries.items() if name != METADATA), default=0
    )


def file_order(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[str]:
    """Return the names in the order in which their bytes are written: wide elements first, which keeps all aligned."""
    return sorted(tensors, key=lambda name: (-NUMPY_DTYPES[tensors[name][0]].itemsize, name))


def dump(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return the file that holds `arrays`; raises InvalidTensorFile for a dtype that the format lacks."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, array in arrays.items():
        if (dtype := _NAMES.get(array.dtype.newbyteorder("<"))) is None:
            raise InvalidTensorFile(f"tensor {name!r}: dtype {array.dtype} has no place in a weight file")
        shapes[name] = (dtype, array.shape)
    parts = [encode_header(shapes, metadata)]
    parts += [
        np.ascontiguousarray(arrays[name], NUMPY_DTYPES[shapes[name][0]]).tobytes() for name in file_order(shapes)
    ]
    return b"".join(parts)


def load(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the tensors of a file by name, BF16 widened to float32; raises InvalidTensorFile."""
    layout = layout_of(data)
    inside = memoryview(data)[layout.data_begin :]
    return {
        tensor.name: decode(tensor.dtype, inside[tensor.begin : tensor.end]).reshape(tensor.shape)
        for tensor in layout.tensors.values()
    }


def count_floating(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Return how many elements travel: those of all floating tensors."""
    return sum(array.size for array in arrays.values() if np.issubdtype(array.dtype, np.floating))


def decode(dtype: str, data: bytes | bytearray | memoryview) -> NDArray[Any]:
    """Return the elements in `data`, 1-D, without a copy where NumPy knows the dtype; BF16 comes as float32."""
    array = np.frombuffer(data, NUMPY_DTYPES[dtype])
    return (array.astype("<u4") << 16).view("<f4") if dtype == "BF16" else array


def encode(dtype: str, values: NDArray[np.float64]) -> NDArray[Any]:
    """Return `values` rounded to nearest, ties to even, as the elements of `dtype` (BF16 as uint16, by way of float32).

    What is too large for the dtype becomes infinite; a NaN stays one.
    """
    with np.errstate(over="ignore"):
        rounded: NDArray[Any] = values.astype("<f4" if dtype == "BF16" else NUMPY_DTYPES[dtype])
    if dtype != "BF16":
        return rounded
    bits: NDArray[np.uint32] = rounded.view("<u4")
    upper: NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    upper[np.isnan(rounded)] = 0x7FC0  # rounding up would carry some of them over into -0.0
    return upper


def _parse_header(header: bytes, alike: Alike) -> tuple[dict[str, str], dict[str, Tensor]]:
    if (parts := _split(header)) is None:
        entries = _parse_json(header)
        return _parse_metadata(entries.pop(METADATA, {})), _parse_tensors(entries)
    metadata, described = parts
    if described not in alike:
        alike[described] = _parse_tensors(_parse_json(described))
    return _parse_metadata(metadata), alike[described]


def _split(header: bytes) -> tuple[Any, bytes] | None:
    """Return the metadata, and the JSON object of the tensors alone; None where the metadata do not come first."""
    if not header.startswith(_METADATA_FIRST):
        return None
    try:
        text = header.decode()
        metadata, end = strict_json.first(text, len(_METADATA_FIRST))
    except ValueError:
        return None  # the whole is not JSON either, and will be refused for it
    # Without the padding, whose length is the metadata's affair.
    return (metadata, b"{" + text[end + 1 :].rstrip(" ").encode()) if text.startswith(',"', end) else None


def _parse_json(data: bytes) -> dict[str, Any]:
    try:
        header = strict_json.loads(data)
    except ValueError as error:
        raise InvalidTensorFile(f"the header is not JSON as the format has it: {error}") from error
    if not isinstance(header, dict):
        raise InvalidTensorFile(f"the header is a JSON {type(header).__name__}, expected an object")
    return header


def _parse_tensors(entries: dict[str, Any]) -> dict[str, Tensor]:
    if METADATA in entries:  # where they came first, too
        raise InvalidTensorFile(f"{METADATA} occurs twice")
    tensors = sorted(
        (_parse_tensor(*entry) for entry in entries.items()), key=lambda tensor: (tensor.begin, tensor.end)
    )
    return {tensor.name: tensor for tensor in tensors}


def _parse_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InvalidTensorFile(f"{METADATA} must map text to text")
    return metadata


def _parse_tensor(name: str, entry: Any) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidTensorFile(f"tensor {name!r}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in NUMPY_DTYPES:
        raise InvalidTensorFile(f"tensor {name!r}: unknown dtype {dtype!r}")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise InvalidTensorFile(f"tensor {name!r}: shape and data_offsets must be lists of whole numbers ≥ 0")
    itemsize = NUMPY_DTYPES[dtype].itemsize
    if len(shape) > _MAX_DIMENSIONS or prod(size or 1 for size in shape) * itemsize >= 2**63:
        raise InvalidTensorFile(f"tensor {name!r}: a shape of {len(shape)} dimensions that no array can have")
    length = prod(shape) * itemsize
    if offsets[1] - offsets[0] != length:
        raise InvalidTensorFile(f"tensor {name!r}: {dtype} of shape {shape} takes {length} bytes, not {offsets}")
    return Tensor(name, dtype, tuple(shape), offsets[0], offsets[1])


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_contiguous(tensors: Iterable[Tensor], size: int) -> None:
    end = 0
    for tensor in tensors:
        if tensor.begin != end:
            raise InvalidTensorFile(
                f"tensor {tensor.name!r} begins at byte {tensor.begin} of the data, expected {end}: a gap or an overlap"
            )
        end = tensor.end
    if end != size:
        raise InvalidTensorFile(
            f"the tensors end at byte {end} of the data, the file at {size}: truncated, or something was appended"
        )
