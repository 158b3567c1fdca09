"""Weight files in blocks: the same numbers whatever a file's order and dtype, at one version, in few requests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import tensors
from exchange.blocks import Piece, WeightFile, digest, open_weights, read_all, stripes
from exchange.errors import InvalidTensorFile, NotFound, StoreError, VersionMismatch
from exchange.stores.memory import MemoryStore
from exchange.tensors import Tensor


class RecordingStore(MemoryStore):
    """Remembers the ranges that were asked for."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: 0.0)
        self.ranges: list[tuple[int, int]] = []

    def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
        assert version is not None, "every read is pinned"
        self.ranges.append((offset, len(buffer)))
        super().read_into(key, offset, buffer, version)


VALUES = {
    "layer1.weight": np.arange(35.0).reshape(5, 7),
    "layer1.bias": -np.arange(5.0),
    "empty": np.zeros((0, 3)),
    "scale": np.array(0.5),
    "layer2.weight": np.arange(12.0).reshape(2, 6) / 4,
}


def weights(dtypes: Mapping[str, str], order: list[str] | None = None) -> bytes:
    """A file that holds VALUES, each tensor in its own dtype, in the given order of bytes, which need not be ours."""
    entries, parts, offset = {}, [], 0
    for name in order or list(VALUES):
        data = tensors.encode(dtypes[name], VALUES[name].ravel()).tobytes()
        entries[name] = {
            "dtype": dtypes[name],
            "shape": list(VALUES[name].shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
        parts.append(data)
    header = str(entries).replace("'", '"').encode()
    return len(header).to_bytes(8, "little") + header + b"".join(parts)


def opened(data: bytes) -> tuple[RecordingStore, WeightFile]:
    store = RecordingStore()
    store.create("w", data)
    file = open_weights(store, "w")
    store.ranges.clear()
    return store, file


def expected(pieces: list[Piece]) -> np.ndarray[Any, Any]:
    return np.concatenate([VALUES[piece.name].ravel()[piece.start : piece.start + piece.count] for piece in pieces])


shapes = st.lists(st.lists(st.integers(0, 6), max_size=3).map(tuple), max_size=6)


@given(shapes, st.integers(1, 50))
def test_stripes_hold_every_element_once_and_in_order(shapes: list[tuple[int, ...]], elements: int) -> None:
    found = [Tensor(f"t{number}", "F32", shape, 0, 0) for number, shape in enumerate(shapes)]
    cut = list(stripes(found, elements))
    assert [(piece.name, piece.start + i) for stripe in cut for piece in stripe for i in range(piece.count)] == [
        (tensor.name, i) for tensor in found for i in range(tensor.count)
    ]
    sizes = [sum(piece.count for piece in stripe) for stripe in cut]
    assert all(size == elements for size in sizes[:-1])
    assert all(0 < size <= elements for size in sizes)
    assert all(piece.count > 0 for stripe in cut for piece in stripe)


ORDERS = [list(VALUES), list(reversed(VALUES)), sorted(VALUES)]
MIXED = dict(zip(VALUES, ["F64", "BF16", "F32", "F16", "F32"], strict=True))


@pytest.mark.parametrize("elements", [1, 7, 20, 1000])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtypes", [dict.fromkeys(VALUES, dtype) for dtype in ("F64", "F32", "F16", "BF16")] + [MIXED])
def test_files_of_any_order_and_dtype_are_read_in_step(dtypes: dict[str, str], order: list[str], elements: int) -> None:
    _, model = opened(weights(dict.fromkeys(VALUES, "F32")))
    _, file = opened(weights(dtypes, order))
    for stripe in stripes(model.layout.floating, elements):
        values = read_all(file, stripe)
        assert values.dtype == np.float64
        assert np.array_equal(values, expected(stripe))


def test_no_pieces_are_no_elements() -> None:
    _, file = opened(weights(dict.fromkeys(VALUES, "F32")))
    assert read_all(file, []).shape == (0,)


def test_integer_tensors_are_left_out_of_what_travels() -> None:
    _, file = opened(tensors.dump({"w": np.ones(3), "steps": np.ones((), np.int64)}, {}))
    assert [piece.name for stripe in stripes(file.layout.floating, 10) for piece in stripe] == ["w"]


def test_what_lies_side_by_side_comes_in_one_request() -> None:
    store, file = opened(weights(dict.fromkeys(VALUES, "F32")))
    (stripe,) = stripes(file.layout.floating, 1000)
    read_all(file, stripe)
    assert store.ranges == [(file.layout.data_begin, 4 * 53)]


def test_neighbours_of_another_dtype_come_in_their_own_request() -> None:
    store, file = opened(weights({**dict.fromkeys(VALUES, "F32"), "scale": "F16"}))
    (stripe,) = stripes(file.layout.floating, 1000)
    read_all(file, stripe)
    assert [size for _, size in store.ranges] == [4 * 40, 2, 4 * 12]


def test_no_request_is_larger_than_its_stripe() -> None:
    store, file = opened(weights(MIXED))
    for stripe in stripes(file.layout.floating, 6):
        read_all(file, stripe)
    assert max(size for _, size in store.ranges) <= 6 * 8
    assert sum(size for _, size in store.ranges) == file.layout.size - file.layout.data_begin


def test_head_and_raw_bytes_in_order_are_the_file() -> None:
    data = weights(MIXED)
    _, file = opened(data)
    parts = [raw for stripe in stripes(file.layout.floating, 9) for _, raw in file.read_raw(stripe)]
    assert file.read_head() + b"".join(parts) == data


def test_opening_reads_the_header_and_nothing_else() -> None:
    store = RecordingStore()
    store.create("w", data := tensors.dump({"w": np.zeros(10**5)}, {"round": "7"}))
    file = open_weights(store, "w")
    assert sum(size for _, size in store.ranges) == file.layout.data_begin < 1000
    assert file.layout == tensors.layout_of(data)
    assert file.version == store.stat("w").version


def test_the_digest_is_that_of_the_whole_file() -> None:
    for data in (tensors.dump({}, {}), weights(MIXED), tensors.dump({"w": np.arange(9 * 2**17, dtype="f8")}, {})):
        _, file = opened(data)
        assert digest(file) == hashlib.sha256(data).hexdigest()


def test_a_missing_file_is_not_found() -> None:
    with pytest.raises(NotFound):
        open_weights(RecordingStore(), "w")


def test_an_unsound_file_is_refused() -> None:
    store = RecordingStore()
    store.create("w", os.urandom(1000))
    with pytest.raises(InvalidTensorFile):
        open_weights(store, "w")


def test_a_file_cut_off_anywhere_is_refused() -> None:
    data = weights(MIXED)
    for length in range(0, len(data), 5):
        store = RecordingStore()
        store.create("w", data[:length])
        with pytest.raises(InvalidTensorFile):
            open_weights(store, "w")


def test_a_header_above_the_limit_is_refused() -> None:
    store = RecordingStore()
    store.create("w", weights(MIXED))
    with pytest.raises(InvalidTensorFile):
        open_weights(store, "w", max_header_bytes=20)


READS: dict[str, Callable[[WeightFile], object]] = {
    "head": lambda file: file.read_head(),
    "raw": lambda file: list(file.read_raw([Piece("scale", 0, 1)])),
    "elements": lambda file: read_all(file, [Piece("scale", 0, 1)]),
    "digest": digest,
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("again", [weights(MIXED), weights(dict.fromkeys(VALUES, "F64"))])
def test_a_file_replaced_after_it_was_opened_is_not_read(read: str, again: bytes) -> None:
    store, file = opened(weights(MIXED))
    store.replace("w", again)
    with pytest.raises(VersionMismatch):
        READS[read](file)


def test_a_file_can_be_opened_at_a_version_that_it_still_has() -> None:
    store = RecordingStore()
    version = store.create("w", weights(MIXED))
    assert open_weights(store, "w", version).version == version
    store.replace("w", weights(MIXED))
    with pytest.raises(VersionMismatch):
        open_weights(store, "w", version)


def test_a_file_replaced_while_it_is_opened_is_never_a_mixture() -> None:
    class Replacing(RecordingStore):
        def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
            super().read_into(key, offset, buffer, version)
            self.replace(key, weights(dict.fromkeys(VALUES, "F64")))

    store = Replacing()
    store.create("w", weights(MIXED))
    with pytest.raises(StoreError):
        open_weights(store, "w")


def test_files_with_the_same_tensors_share_their_description_and_stay_what_they_are() -> None:
    store = MemoryStore(clock=lambda: 0.0)
    singles = {name: value.astype(np.float32) for name, value in VALUES.items()}
    store.create("first", tensors.dump(singles, {"client": "a"}))
    store.create("second", tensors.dump({name: -value for name, value in singles.items()}, {"client": "hospital-b"}))
    store.create("other", weights(dict.fromkeys(VALUES, "F32"), list(reversed(VALUES))))
    alike: tensors.Alike = {}
    first, second, other = (open_weights(store, key, alike=alike) for key in ("first", "second", "other"))
    assert first.layout.data_begin != second.layout.data_begin
    assert second.layout.tensors is first.layout.tensors
    assert second.layout.metadata == {"client": "hospital-b"}
    assert other.layout.tensors is not first.layout.tensors
    pieces = [Piece("layer2.weight", 3, 5)]
    assert np.array_equal(read_all(second, pieces), -expected(pieces))
    assert np.array_equal(read_all(other, pieces), expected(pieces))


def test_a_description_seen_before_says_nothing_of_a_files_size() -> None:
    store = MemoryStore(clock=lambda: 0.0)
    whole = tensors.dump({name: value.astype(np.float32) for name, value in VALUES.items()}, {"client": "a"})
    store.create("whole", whole)
    store.create("short", whole[:-4])
    alike: tensors.Alike = {}
    open_weights(store, "whole", alike=alike)
    with pytest.raises(InvalidTensorFile, match="truncated"):
        open_weights(store, "short", alike=alike)
