"""Anything that a client may upload gets a receipt: no crash, no more reading than its size allows, and nothing unsound
is accepted. What is sound is judged by the safetensors package and by NumPy."""

import json
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator import rounds as parent_rounds
from aggregator.receipts import examine
from exchange import keys
from exchange.blocks import WeightFile
from exchange.errors import FedbucketError
from exchange.events import ObjectCreated
from exchange.tensors import Layout, Tensor
from tests.support import hostile
from tests.support.arithmetic import FIRST
from tests.support.buckets import Bucket, Clock, contents
from tests.support.federation import Federation
from tests.support.settings import federation_settings
from tests.support.watched import WatchedStore

SHAPES = {name: array.shape for name, array in FIRST.items() if array.dtype.kind == "f"}
METADATA = {"federation": "orchard", "round": "0", "client": "birch"}
A_PICKLE = b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x8c\x05print\x93\x94\x8c\x02hi\x85\x94R\x94."
MODEL_HEADER = 1000  # bytes; more than that of FIRST


class Counting(WatchedStore):
    """A store that counts the bytes that are asked of it."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner, lambda call: 0, lambda number: None)
        self.asked = 0

    def read_into(self, key: str, offset: int, buffer: memoryview, version: str | None = None) -> None:
        self.asked += len(buffer)
        super().read_into(key, offset, buffer, version)


@settings(max_examples=200)
@given(
    hostile.weight_files(SHAPES, METADATA)
    | st.binary(max_size=300)
    | st.sampled_from((b"", A_PICKLE, b"PK\x03\x04" + bytes(200), bytes(10**6)))
)
def test_any_upload_gets_a_receipt_and_none_that_is_unsound_is_accepted(data: bytes):
    federation = Federation(federation_settings(rounds=1)).start()
    federation.upload("birch", 0, data)
    stores: list[Counting] = []
    federation.watch = lambda store: stores.append(Counting(store)) or stores[-1]
    parent_rounds.record(federation.parent, keys.Update("orchard", "birch", 0))
    receipt = federation.receipt("birch", 0)
    assert receipt is not None
    assert receipt.detail is None or len(receipt.detail) <= 300
    assert (receipt.outcome == "accepted") == is_sound(data)
    assert sum(store.asked for store in stores) <= 4 * (len(data) + MODEL_HEADER)


@pytest.mark.parametrize("length", [100_000_000, 100_000_001])
@pytest.mark.parametrize(("elements", "code"), [(3, "too-large"), (2**25, "not-safetensors")])
def test_a_header_of_a_hundred_megabytes_is_refused_unread(length: int, elements: int, code: str):
    bucket, key = Bucket(Clock()), keys.Update("orchard", "birch", 0)
    text = json.dumps({"__metadata__": METADATA}).encode()
    bucket.create(str(key), length.to_bytes(8, "little") + text.ljust(length))
    spec = federation_settings(rounds=1)
    # Only the model's header matters: an update may be as large as its tensors let it be.
    model = WeightFile(bucket, "model", "1", Layout({"w": Tensor("w", "F32", (elements,), 0, 4 * elements)}, {}, 80, 0))
    store = Counting(bucket)
    receipt = examine(store, spec, next(each for each in spec.client if each.id == "birch"), key, model)
    assert receipt.code == code
    assert store.asked <= 8


def is_sound(data: bytes) -> bool:
    """Return whether `data` is an update of FIRST, by other means than the code under test; stricter on the header."""
    try:
        arrays = {name: _widened(entry) for name, entry in safetensors.deserialize(data)}
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")], object_pairs_hook=_once)
        header.pop("__metadata__")
    except (safetensors.SafetensorError, ValueError, KeyError):
        return False
    if {name: array.shape for name, array in arrays.items()} != SHAPES or not _metadata_fits(data):
        return False
    largest = float(np.finfo(np.float32).max)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        wide = [array.astype(np.float64) for array in arrays.values() if array.dtype.kind == "f"]
    return len(wide) == len(arrays) and all(bool(np.all(np.abs(array) <= largest)) for array in wide)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name twice")
    return found


def _metadata_fits(data: bytes) -> bool:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found = header.get("__metadata__", {})
    return "metrics" not in found and all(found.get(name) == value for name, value in METADATA.items())


def _widened(entry: dict[str, Any]) -> np.ndarray[Any, Any]:
    data, shape = bytes(entry["data"]), tuple(entry["shape"])
    if entry["dtype"] == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    dtype = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}.get(entry["dtype"])
    if dtype is None:
        return np.zeros(shape, np.int8)
    return np.frombuffer(data, dtype).reshape(shape)


@cache
def published() -> bytes:
    return federation_settings(rounds=1).to_bytes()


@settings(max_examples=100)
@given(hostile.documents(published()))
def test_any_settings_are_settings_or_an_error_of_ours(data: bytes):
    federation = Federation(federation_settings(rounds=1)).start()
    federation.parent_bucket.replace("orchard/public/federation.json", data)
    federation.inboxes = Anywhere(federation.inboxes)
    for event in list(federation.events):
        with suppress(FedbucketError, ExceptionGroup):
            parent_rounds.handle(federation.parent, event)


class Anywhere(dict[str, Bucket]):
    """Inboxes: a bucket at whatever URL the settings name."""

    def __missing__(self, url: str) -> Bucket:
        return Bucket(Clock())


@pytest.mark.parametrize("key", hostile.PATHS)
def test_a_key_that_plays_tricks_wakes_nothing(key: str):
    federation = Federation(federation_settings(rounds=1)).start()
    before = contents(federation.parent_bucket)
    parent_rounds.handle(federation.parent, ObjectCreated("parent", key, "event"))
    assert contents(federation.parent_bucket) == before


@given(st.text())
def test_any_text_as_a_key_wakes_nothing(key: str):
    test_a_key_that_plays_tricks_wakes_nothing(key)
