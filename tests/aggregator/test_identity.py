"""The same bytes, whatever does not matter: the order of arrival, threads, stripes, the store, names, and where files
keep their tensors. And the right bytes, at the sizes and in the dtypes in which arithmetic goes wrong."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aggregator import krum, mean, robust, stripes
from aggregator.krum import nearest
from aggregator.mean import mean_of
from aggregator.robust import median_of, trimmed_mean_of
from aggregator.server_optimizers import Optimizer
from aggregator.stripes import Rule, write_data
from exchange import tensors
from exchange.blocks import WeightFile, open_weights
from exchange.spec import FedAdaptive
from exchange.stores import Store
from exchange.stores.file import FileStore
from exchange.stores.memory import MemoryStore
from tests.exchange.stores.backends import BACKENDS
from tests.support.federation import Federation
from tests.support.settings import federation_settings

DTYPES = ("F64", "F32", "F16", "BF16")
Wide = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Case:
    """A model and its updates, as the numbers that their files hold.

    Attributes:
        dtypes: of each tensor of the model, then of each update; an update may have others.
        weights: of the updates.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Sequence[Mapping[str, str]]
    weights: Sequence[int]
    seed: int

    @property
    def values(self) -> list[Wide]:
        """What the files hold, in float64: the model's first."""
        generator = np.random.default_rng(self.seed)
        return [
            {name: held(dtypes[name], generator.standard_normal(prod(shape))) for name, shape in self.shapes.items()}
            for dtypes in self.dtypes
        ]


def held(dtype: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values that a file in this dtype keeps; some are zeros, of either sign."""
    values[::5] = -0.0
    return tensors.decode(dtype, tensors.encode(dtype, values).tobytes()).astype(np.float64)


def written(shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str], values: Wide, order: list[str]) -> bytes:
    """Return a weight file that keeps its tensors in this order."""
    header = tensors.encode_header({name: (dtypes[name], shapes[name]) for name in shapes}, {}, order)
    return header + b"".join(tensors.encode(dtypes[name], values[name]).tobytes() for name in order)


shapes = st.one_of(
    st.just(()),
    st.tuples(st.sampled_from([0, 1, 2, 7, 200])),
    st.tuples(st.integers(0, 4), st.integers(1, 5)),
)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8).filter(lambda name: "__" not in name)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    found = draw(st.dictionaries(names, shapes, min_size=1, max_size=6))
    clients = draw(st.integers(1, 7))
    dtype = st.sampled_from(DTYPES)
    dtypes = [{name: draw(dtype) for name in found} for _ in range(clients + 1)]
    return Case(found, dtypes, draw(st.lists(st.integers(1, 10**6), min_size=clients, max_size=clients)), draw(seeds))


seeds = st.integers(0, 2**32 - 1)


def rules(case: Case, model: WeightFile, files: list[WeightFile]) -> dict[str, Rule]:
    """Return all rules for these updates."""
    weighted = mean_of(list(zip(files, case.weights, strict=True)))
    adam = Optimizer(FedAdaptive(name="fedadam", learning_rate=0.1), model, None)
    return {
        "mean": weighted,
        "median": median_of(files),
        "trimmed mean": trimmed_mean_of(files, (len(files) - 1) // 2),
        "fedadam": Rule(weighted.combine, weighted.elements, adam.step),
    }


def expected(case: Case) -> dict[str, Callable[[str], NDArray[np.float64]]]:
    """Return what the rules give for a tensor, in float64, by NumPy on whole arrays."""
    model, *updates = case.values

    def rows(name: str) -> NDArray[np.float64]:
        return np.stack([update[name] for update in updates])

    def weighted(name: str) -> NDArray[np.float64]:
        total = np.zeros(model[name].shape)
        for update, weight in zip(updates, case.weights, strict=True):
            total = total + update[name] * float(weight)
        return total / float(sum(case.weights))

    def trimmed(name: str) -> NDArray[np.float64]:
        cut = (len(updates) - 1) // 2
        total = np.zeros(model[name].shape)
        for row in np.sort(rows(name), axis=0)[cut : len(updates) - cut]:
            total = total + row
        return total / (len(updates) - 2 * cut)

    def adam(name: str) -> NDArray[np.float64]:
        delta = weighted(name) - model[name]
        moment, second = 0.9 * 0.0 + (1 - 0.9) * delta, 0.99 * (1e-3 * 1e-3) + (1 - 0.99) * (delta * delta)
        return model[name] + 0.1 * (moment / (np.sqrt(second) + 1e-3))

    def median(name: str) -> NDArray[np.float64]:
        ranked = np.sort(rows(name), axis=0)
        return ranked[(len(ranked) - 1) // 2] / 2 + ranked[len(ranked) // 2] / 2 + 0.0

    return {"mean": weighted, "median": median, "trimmed mean": trimmed, "fedadam": adam}


def cut_small(random: Random) -> ExitStack:
    """Cut everything into pieces of random, odd sizes for as long as the context lasts."""
    stack = ExitStack()
    block = random.choice([1, 3, 50, 2**15])
    for module in (stripes, mean):
        stack.enter_context(mock.patch.object(module, "BLOCK", block))
    stack.enter_context(mock.patch.object(mean, "STRIPE_ELEMENTS", random.choice([1, 5, 64, 2**20])))
    stack.enter_context(mock.patch.object(robust, "GATHERED", random.choice([1, 9, 300, 2**21])))
    stack.enter_context(mock.patch.object(robust, "_BLOCK", random.choice([1, 9, 300, 2**16])))
    stack.enter_context(mock.patch.object(krum, "_BLOCK", random.choice([1, 9, 2**16])))
    return stack


def stored(case: Case, store: Store, random: Random) -> tuple[WeightFile, list[WeightFile]]:
    """Return model and updates in a store, each file with its tensors in an order of its own."""
    found = []
    for number, (dtypes, values) in enumerate(zip(case.dtypes, case.values, strict=True)):
        order = random.sample(list(case.shapes), len(case.shapes))
        store.create(f"file/{number}", written(case.shapes, dtypes, values, order))
        found.append(open_weights(store, f"file/{number}"))
    return found[0], found[1:]


def made(case: Case, store: Store, random: Random, small: bool = True) -> dict[str, tuple[bytes, bytes]]:
    """Return the data of the next model, and of the state, by every rule; and whom multi-Krum chooses, as bytes.

    Args:
        small: whether to cut everything into small pieces: many calls to the store.
    """
    model, files = stored(case, store, random)
    found = {}
    with cut_small(random) if small else ExitStack():
        for name, rule in rules(case, model, files).items():
            data, state = bytearray(), bytearray()
            write_data(model, rule, data.extend, random.choice([1, 2, 3]), state.extend)
            found[name] = bytes(data), bytes(state)
        if len(files) >= 5:
            chosen = nearest(model, files, [1.0] * len(files), 1, len(files) - 1, random.choice([1, 2]))
            found["multi-krum"] = bytes(chosen), b""
    return found


@settings(max_examples=60)
@given(cases(), seeds)
def test_the_bytes_are_those_of_whole_arrays_whatever_store_threads_stripes_and_orders(case: Case, seed: int):
    random = Random(seed)
    first = made(case, MemoryStore(lambda: 0.0), random)
    with TemporaryDirectory() as folder:
        assert made(case, FileStore(Path(folder)), random) == first
    own = case.dtypes[0]
    order = tensors.file_order({name: (own[name], shape) for name, shape in case.shapes.items()})
    for rule, value in expected(case).items():
        assert first[rule][0] == b"".join(tensors.encode(own[name], value(name)).tobytes() for name in order), rule


def test_ten_thousand_small_tensors_are_each_their_own():
    generator = np.random.default_rng(0)
    shapes = {f"t{generator.integers(10**9)}.{number}": (number % 3,) for number in range(10_000)}
    case = Case(shapes, [dict.fromkeys(shapes, "F32")] * 4, [3, 1, 2], seed=1)
    found, value = made(case, MemoryStore(lambda: 0.0), Random(0), small=False), expected(case)
    for rule in ("mean", "median", "trimmed mean"):
        parts = [tensors.encode("F32", value[rule](name)).tobytes() for name in sorted(shapes)]
        assert found[rule][0] == b"".join(parts)


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "memory"])
def test_every_store_gives_the_bytes_that_memory_gives(name: str, tmp_path: Path):
    case = Case({"a": (3, 700), "b": (), "c": (50,)}, [{"a": "F32", "b": "F64", "c": "BF16"}] * 6, [5, 1, 9, 2, 2], 3)
    with BACKENDS[name].open(tmp_path) as bucket:
        assert made(case, bucket.store, Random(1), small=False) == made(case, MemoryStore(lambda: 0.0), Random(2))


STRATEGIES: list[dict[str, Any]] = [
    {"name": "fedavg", "weights": "uniform"},
    {"name": "fedavgm"},
    {"name": "fedyogi", "learning_rate": 0.1},
    {"name": "median"},
    {"name": "trimmed-mean", "byzantine": 1},
    {"name": "multi-krum", "byzantine": 1},
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_the_order_of_arrival_does_not_matter(strategy: dict[str, Any]):
    clients = ("alder", "birch", "cedar", "dogwood", "elder")
    run = partial(federation_settings, clients, rounds=2, quorum=5, strategy=strategy)
    expected = Federation(run()).run()
    for seed in range(3):
        federation = Federation(run()).run(order=Random(seed), duplicates=True, sweeps=Random(seed))
        assert federation.models == expected.models
        assert federation.folder("rounds/000001/optimizer") == expected.folder("rounds/000001/optimizer")


@pytest.mark.slow
def test_a_model_of_four_gigabytes_in_one_tensor_is_averaged_like_any_other(tmp_path: Path):
    # Files full of holes, with a few values here and there: in memory there is never more than a stripe of them.
    count = 10**9 + 7
    places = [0, 1, 2**20 - 1, 2**20, 5 * 10**8, 2**29 + 1, count - 2**20, count - 1]
    header = tensors.encode_header({"w": ("F32", (count,))}, {})
    store = FileStore(tmp_path)
    for number in range(3):
        path = tmp_path / str(number)
        path.write_bytes(header)
        with path.open("r+b") as file:
            file.truncate(len(header) + 4 * count)
            for place in places:
                file.seek(len(header) + 4 * place)
                file.write(np.float32(place % 97 + number).tobytes())
    model, *files = (open_weights(store, str(number)) for number in range(3))
    with (tmp_path / "next").open("wb") as out:
        change = write_data(model, mean_of(list(zip(files, (3, 1), strict=True))), out.write, workers=2)
    found = np.memmap(tmp_path / "next", np.float32, "r")
    assert found.size == count
    assert [found[place] for place in places] == [np.float32(place % 97 + 1.25) for place in places]
    assert change.moved == pytest.approx(np.sqrt(len(places)) * 1.25)
