"""The weighted mean of updates, held to the bit against NumPy and torch in float64, however it is cut into pieces."""

import hashlib
import tracemalloc
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray

from aggregator import mean as mean_module
from aggregator import receipts as receipts_module
from aggregator import rounds as parent_rounds
from aggregator import stripes as stripes_module
from aggregator.mean import mean_of
from aggregator.stripes import Change, model_header, write_data
from exchange.blocks import WeightFile, open_weights
from exchange.stores.memory import MemoryStore
from tests.support import arithmetic
from tests.support.arithmetic import Arrays, file_of, model_file, update_file
from tests.support.federation import Federation
from tests.support.settings import federation_settings

SHAPES: dict[str, tuple[int, ...]] = {
    "z.weight": (17, 5),
    "a": (),
    "empty": (0, 3),
    "M": (1,),
    "long": (70_003,),  # more than two of the blocks in which it is folded
    "a.b": (2, 3, 4),
    "ü/weight": (3,),
}


def opened(data: bytes) -> WeightFile:
    store = MemoryStore(lambda: 0.0)
    store.create("file", data)
    return open_weights(store, "file")


def averaged(model: bytes, updates: Sequence[tuple[bytes, int]], workers: int = 1) -> tuple[bytes, Change]:
    """Return the file of the next model."""
    global_model = opened(model)
    parts = [model_header(global_model, {"round": "1"})]
    rule = mean_of([(opened(data), count) for data, count in updates]) if updates else None
    change = write_data(global_model, rule, parts.append, workers)
    return b"".join(parts), change


def random_arrays(seed: int, dtypes: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape).astype(dtypes[name]) for name, shape in shapes.items()}


def all_float32(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return dict.fromkeys(shapes, np.float32)


MODEL = {**random_arrays(0, all_float32(SHAPES), SHAPES), "count": np.array([[3, 4]], np.int64)}
COUNTS = (1200, 1, 345)
UPDATES = [random_arrays(seed, all_float32(SHAPES), SHAPES) for seed in (1, 2, 3)]
WEIGHED = list(zip(UPDATES, COUNTS, strict=True))
FILES = [(file_of(arrays, {}), count) for arrays, count in WEIGHED]
EXPECTED = arithmetic.mean(WEIGHED, MODEL)


def test_the_mean_is_the_weighted_mean_in_float64_rounded_once():
    tensors = safetensors.numpy.load(averaged(file_of(MODEL, {}), FILES)[0])
    assert tensors.keys() == EXPECTED.keys()
    for name, array in EXPECTED.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape)
        assert tensors[name].tobytes() == array.tobytes(), name
    assert np.array_equal(tensors["count"], [[3, 4]])


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("stripe", [1000, 2**15 + 1, 2**20])
@pytest.mark.parametrize("block", [999, 2**15])
def test_the_bytes_depend_on_no_size_and_no_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, workers: int, stripe: int, block: int
):
    monkeypatch.setattr(mean_module, "STRIPE_ELEMENTS", stripe)
    monkeypatch.setattr(mean_module, "BLOCK", block)
    monkeypatch.setattr(stripes_module, "BLOCK", block)
    data, change = averaged(file_of(MODEL, {}), FILES, workers)
    assert data == file_of(EXPECTED, {"round": "1"})
    assert change.relative == averaged(file_of(MODEL, {}), FILES)[1].relative


def test_stripes_of_one_element_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch):
    few = {name: array for name, array in MODEL.items() if array.size < 100}
    monkeypatch.setattr(mean_module, "STRIPE_ELEMENTS", 1)
    files = [(file_of({name: arrays[name] for name in few if name in arrays}, {}), n) for arrays, n in WEIGHED]
    for workers in (1, 3):
        assert averaged(file_of(few, {}), files, workers)[0] == file_of(
            {name: EXPECTED[name] for name in few}, {"round": "1"}
        )


@pytest.mark.parametrize("seed", range(5))
def test_tensors_may_stand_in_any_order_in_any_file(seed: int):
    random = Random(seed)

    def shuffled(arrays: Arrays) -> bytes:
        return file_of(arrays, {"seed": str(seed)}, random.sample(sorted(arrays), len(arrays)))

    files = [(shuffled(arrays), count) for arrays, count in WEIGHED]
    assert averaged(shuffled(MODEL), files)[0] == file_of(EXPECTED, {"round": "1"})


def test_a_thousand_small_tensors_are_averaged_one_by_one():
    shapes = {f"layer.{number}": (number % 4,) for number in range(1000)}
    model = random_arrays(0, all_float32(shapes), shapes)
    members = [(random_arrays(seed, all_float32(shapes), shapes), seed) for seed in (1, 2)]
    found, _ = averaged(file_of(model, {}), [(file_of(arrays, {}), count) for arrays, count in members], workers=2)
    assert found == file_of(arithmetic.mean(members, model), {"round": "1"})


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("own", DTYPES, ids=str)
def test_updates_of_any_floating_dtype_are_widened_and_the_model_keeps_its_own(own: torch.dtype):
    generator = torch.Generator().manual_seed(0)

    def draw(dtype: torch.dtype) -> dict[str, torch.Tensor]:
        return {name: torch.randn(5_003, generator=generator).to(dtype) for name in ("a", "b")}

    model = draw(own) | {"steps": torch.tensor(5), "mask": torch.tensor([True, False])}
    members = [(draw(dtype), count) for dtype, count in zip(DTYPES, (5, 70, 1100, 13), strict=True)]
    files = [(safetensors.torch.save(tensors), count) for tensors, count in members]
    found = safetensors.torch.load(averaged(safetensors.torch.save(model), files, workers=2)[0])
    for name in ("a", "b"):
        total = torch.zeros(5_003, dtype=torch.float64)
        for tensors, count in members:
            total += tensors[name].double() * count
        mean = (total / 1188).numpy()
        rounded = mean.astype({torch.float64: "f8", torch.float16: "f2"}.get(own, "f4"))
        assert found[name].dtype == own
        assert torch.equal(found[name], torch.from_numpy(rounded).to(own))
    assert torch.equal(found["steps"], model["steps"])
    assert torch.equal(found["mask"], model["mask"])


def test_tensors_of_different_dtypes_stand_together_in_one_model():
    dtypes = {"a": np.float16, "b": np.float64, "c": np.float32, "d": np.float16}
    shapes = {"a": (3,), "b": (2, 2), "c": (5,), "d": ()}
    model = random_arrays(0, dtypes, shapes)
    members = [(random_arrays(seed, dtypes, shapes), seed) for seed in (3, 4)]
    found, _ = averaged(file_of(model, {}), [(file_of(arrays, {}), count) for arrays, count in members])
    assert found == file_of(arithmetic.mean(members, model), {"round": "1"})


@pytest.mark.parametrize(("dtype", "largest"), [(np.float32, 3.4028235e38), (np.float16, 65504.0)])
def test_the_mean_of_the_largest_numbers_is_finite(dtype: type, largest: float):
    arrays = {"w": np.array([largest, -largest, 0.1], dtype)}
    updates = [(file_of(arrays, {}), count) for count in (1, 3, 7_000_000_019)]
    assert averaged(file_of(arrays, {}), updates)[0] == file_of(arrays, {"round": "1"})


def test_one_update_is_its_own_mean_and_its_weight_does_not_matter():
    for count in (1, 3, 7, 10**9 + 7):
        found, _ = averaged(file_of(MODEL, {}), [(file_of(UPDATES[0], {}), count)])
        assert found == file_of({**UPDATES[0], "count": MODEL["count"]}, {"round": "1"})


def test_without_members_the_model_is_kept_as_it_is():
    backwards = sorted(MODEL, reverse=True)
    data, change = averaged(file_of(MODEL, {}, backwards), [])
    assert data == file_of(MODEL, {"round": "1"})
    assert (change.moved, change.old, change.relative) == (0, 0, None)


def norm(arrays: Arrays) -> float:
    return float(np.sqrt(sum(np.sum(a.astype(np.float64) ** 2) for a in arrays.values() if a.dtype.kind == "f")))


def test_the_change_is_the_distance_between_the_two_models():
    _, change = averaged(file_of(MODEL, {}), FILES)
    moved = {name: EXPECTED[name].astype(np.float64) - MODEL[name] for name in SHAPES}
    assert change.moved == pytest.approx(norm(moved), rel=1e-12)
    assert change.old == pytest.approx(norm(MODEL), rel=1e-12)
    assert change.relative == pytest.approx(norm(moved) / norm(MODEL), rel=1e-5)


def test_a_change_from_nothing_is_not_measured():
    zeros: dict[str, NDArray[Any]] = {name: np.zeros_like(array) for name, array in MODEL.items()}
    assert averaged(file_of(zeros, {}), FILES)[1].relative is None


@pytest.mark.parametrize("change", [Change(1e154, 1e-160), Change(1.0, 5e-324), Change(np.inf, 1), Change(1, np.inf)])
def test_a_change_that_no_float_holds_is_not_measured(change: Change):
    assert change.relative is None


# Memory.

_ELEMENTS = 2**20  # of the model: 4 MiB
_STRIPE = 2**14  # elements: 128 KiB of accumulators


def peak_of_mean(clients: int, workers: int) -> int:
    """Return the bytes that were allocated at once while a mean of so many clients was taken."""
    arrays = {"w": np.zeros(_ELEMENTS, np.float32)}
    model = opened(file_of(arrays, {}))
    members = [(opened(file_of(arrays, {})), 1)] * clients
    tracemalloc.start()
    write_data(model, mean_of(members), hashlib.sha256().update, workers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_does_not_grow_with_the_model_nor_with_the_number_of_clients(
    monkeypatch: pytest.MonkeyPatch, workers: int
):
    monkeypatch.setattr(mean_module, "STRIPE_ELEMENTS", _STRIPE)
    bound = (workers + 1) * 8 * 8 * _STRIPE  # a worker's stripe: its sums, and some arrays of the same size
    assert bound < 4 * _ELEMENTS
    assert peak_of_mean(2, workers) < bound
    assert peak_of_mean(20, workers) < bound


def test_an_update_is_examined_in_memory_that_does_not_grow_with_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(receipts_module, "_BLOCK_ELEMENTS", _STRIPE)
    arrays = {"w": np.zeros(_ELEMENTS, np.float32)}
    federation = Federation(federation_settings())
    parent_rounds.start(federation.parent_bucket, federation.settings, model_file(federation.settings, 0, arrays))
    key = federation.upload("birch", 0, update_file(arrays, "birch", 0))
    tracemalloc.start()
    parent_rounds.record(federation.parent, key)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert federation.receipt("birch", 0).outcome == "accepted"
    assert peak < 8 * 8 * _STRIPE + 2**19  # and some room for whatever else a handler does
