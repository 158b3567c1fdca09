"""Median, trimmed mean and multi-Krum: by hand, against NumPy to the bit, and against those who send anything."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from aggregator import krum as krum_module
from aggregator import robust as robust_module
from aggregator.krum import nearest
from aggregator.robust import median_of, trimmed_mean_of
from aggregator.stripes import Rule
from exchange import tensors
from tests.support.arithmetic import Arrays, file_of
from tests.support.weights import files_of, next_file, opened

MODEL = {"w": np.zeros(4, np.float32), "steps": np.array(3)}


def made(rule: Rule, model: Arrays = MODEL, workers: int = 1) -> Arrays:
    return tensors.load(next_file(opened(file_of(model, {})), rule, workers)[0])


def rows(*values: Sequence[float]) -> list[Arrays]:
    return [{"w": np.array(row, np.float32)} for row in values]


# Median and trimmed mean.


def test_the_median_of_an_odd_number_is_the_one_in_the_middle():
    found = made(median_of(files_of(rows([3, 1, -5, 0], [1, 1, 7, 0], [2, 1e30, 6, -1]))))
    assert found["w"].tolist() == [2, 1, 6, 0]
    assert found["steps"] == 3


def test_the_median_of_an_even_number_is_half_way_between_the_two_in_the_middle():
    found = made(median_of(files_of(rows([1, -9, 5, 0], [2, 8, 5, 0], [4, 0, 5, -1], [1e30, 1, -1e30, -3]))))
    assert found["w"].tolist() == [3, 0.5, 5, -0.5]


def test_the_trimmed_mean_leaves_out_as_many_at_each_end():
    members = rows([1, 0, -1e30, 1], [2, 0, 1, 1], [3, 0, 2, 1], [6, 0, 3, 1], [1e30, 0, 1e30, 1])
    assert made(trimmed_mean_of(files_of(members), 1))["w"].tolist() == [pytest.approx(11 / 3), 0, 2, 1]
    assert made(trimmed_mean_of(files_of(members), 2))["w"].tolist() == [3, 0, 2, 1]


def random_members(count: int, dtype: Any = np.float32) -> list[Arrays]:
    """Members with many equal values, zeros of both signs among them."""
    generator = np.random.default_rng(count)
    return [{"w": (generator.integers(-3, 4, 5_003) * -0.1).astype(dtype)} for _ in range(count)]


def in_float64(members: Sequence[Arrays]) -> NDArray[np.float64]:
    return np.sort(np.stack([arrays["w"].astype(np.float64) for arrays in members]), axis=0)


def by_numpy_median(members: Sequence[Arrays]) -> NDArray[np.float64]:
    return np.median(in_float64(members), axis=0) + 0.0


def by_numpy_trimmed(members: Sequence[Arrays], byzantine: int) -> NDArray[np.float64]:
    total = np.zeros(members[0]["w"].size)
    for row in in_float64(members)[byzantine : len(members) - byzantine]:
        total = total + row
    return total / (len(members) - 2 * byzantine)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("count", "gathered", "block"),
    [(1, 7, 3), (2, 7, 3), (3, 1000, 100), (3, 2**21, 2**16), (10, 1000, 100), (101, 2**14, 2**9), (101, 2**21, 2**16)],
)
def test_they_are_numpys_to_the_bit_however_the_model_is_cut(
    monkeypatch: pytest.MonkeyPatch, count: int, gathered: int, block: int, workers: int
):
    monkeypatch.setattr(robust_module, "GATHERED", gathered)
    monkeypatch.setattr(robust_module, "_BLOCK", block)
    members = random_members(count)
    model = {"w": np.ones(5_003, np.float32)}
    expected = by_numpy_median(members).astype(np.float32)
    assert made(median_of(files_of(members)), model, workers)["w"].tobytes() == expected.tobytes()
    trim = (count - 1) // 2
    expected = by_numpy_trimmed(members, trim).astype(np.float32)
    assert made(trimmed_mean_of(files_of(members), trim), model, workers)["w"].tobytes() == expected.tobytes()


def test_a_zero_has_no_sign_whoever_sent_it():
    for members in ([0.0, -0.0], [-0.0, 0.0], [-0.0, -0.0], [-0.0]):
        files = files_of([{"w": np.array([value], np.float32)} for value in members])
        model = {"w": np.ones(1, np.float32)}
        for rule in (median_of(files), trimmed_mean_of(files, 0)):
            assert made(rule, model)["w"].tobytes() == bytes(4)


def test_updates_of_any_dtype_are_compared_as_the_numbers_that_they_are():
    dtypes = [np.float64, np.float32, np.float16]
    members = [{"w": np.array([0.1, 2.0**-30 * k, k, -0.1], dtype)} for k, dtype in enumerate(dtypes)]
    model = {"w": np.zeros(4)}
    assert np.array_equal(made(median_of(files_of(members)), model)["w"], by_numpy_median(members))
    assert np.array_equal(made(trimmed_mean_of(files_of(members), 1), model)["w"], by_numpy_trimmed(members, 1))


def test_the_median_of_the_largest_numbers_is_finite():
    largest = np.finfo(np.float64).max
    members = [{"w": np.array([largest, -largest, largest, 0.0])} for _ in range(4)]
    model = {"w": np.zeros(4)}
    assert np.array_equal(made(median_of(files_of(members)), model)["w"], members[0]["w"])


# Multi-Krum.


def chosen(
    members: Sequence[Arrays], byzantine: int, select: int, model: Arrays = MODEL, workers: int = 1
) -> list[int]:
    norms = [float(np.linalg.norm(arrays["w"].astype(np.float64) - model["w"])) for arrays in members]
    return nearest(opened(file_of(model, {})), files_of(members), norms, byzantine, select, workers)


def test_krum_by_hand():
    # On a line at 0, 1, 3, 4, 10 with f = 1, a score is of the n − f − 2 = 2 nearest:
    # 1 + 9 = 10, 1 + 4 = 5, 1 + 4 = 5, 1 + 9 = 10, 36 + 49 = 85.
    members = rows(*([place, 0, 0, 0] for place in (0, 1, 3, 4, 10)))
    assert chosen(members, byzantine=1, select=1) == [1], "of equal scores, the first"
    assert chosen(members, byzantine=1, select=2) == [1, 2]
    assert chosen(members, byzantine=1, select=3) == [0, 1, 2]
    assert chosen(members, byzantine=1, select=4) == [0, 1, 2, 3]


def exact_scores(members: Sequence[Arrays], byzantine: int) -> list[Fraction]:
    """Scores in exact arithmetic, of the updates as they are."""
    vectors = [[Fraction(float(value)) for value in arrays["w"]] for arrays in members]
    scores = []
    for one in vectors:
        distances = sorted(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) for other in vectors)
        scores.append(sum(distances[1 : len(members) - byzantine - 1], Fraction(0)))
    return scores


def near(centre: float, count: int, seed: int, size: int = 50) -> list[Arrays]:
    generator = np.random.default_rng(seed)
    return [{"w": (centre + generator.standard_normal(size)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("model", [0.0, 1000.0])
def test_the_selected_are_those_with_the_lowest_exact_scores(seed: int, model: float):
    members = near(model, 11, seed)
    scores = exact_scores(members, byzantine=3)
    expected = sorted(sorted(range(11), key=lambda place: scores[place])[:5])
    assert chosen(members, 3, 5, {"w": np.full(50, model, np.float32)}) == expected


LIES = {
    "scaled": lambda honest: honest * 1e6,
    "flipped": lambda honest: -50 * honest,
    "constant": lambda honest: np.full_like(honest, 100.0),
    "largest": lambda honest: np.full_like(honest, np.finfo(np.float32).max) * np.sign(honest),
    "one element": lambda honest: np.where(np.arange(honest.size) == 3, np.float32(1e30), honest),
}


@pytest.mark.parametrize("lie", LIES)
def test_those_who_lie_are_left_out_however_large_their_lies_are(lie: str):
    members = near(1.0, 10, seed=1)
    for liar in (2, 7):
        members[liar] = {"w": LIES[lie](members[liar]["w"])}
    members[5] = {"w": members[5]["w"] + 5}  # a lie of a moderate size beside the large ones
    found = chosen(members, byzantine=3, select=7, model={"w": np.zeros(50, np.float32)})
    assert found == [0, 1, 3, 4, 6, 8, 9]


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e30])
def test_the_size_of_the_updates_does_not_matter(scale: float):
    members = [{"w": (arrays["w"] * scale).astype(np.float32)} for arrays in near(0.0, 9, seed=5)]
    scores = exact_scores(members, byzantine=2)
    expected = sorted(sorted(range(9), key=lambda place: scores[place])[:4])
    assert chosen(members, 2, 4, {"w": np.zeros(50, np.float32)}) == expected


def test_updates_that_did_not_move_are_chosen_in_order():
    assert chosen([{"w": MODEL["w"]}] * 7, byzantine=2, select=3) == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("gathered", "block"), [(2**21, 2**19), (500, 77), (11, 1)])
def test_the_products_are_the_same_whole_numbers_however_the_model_is_cut(
    monkeypatch: pytest.MonkeyPatch, gathered: int, block: int, workers: int
):
    monkeypatch.setattr(robust_module, "GATHERED", gathered)
    monkeypatch.setattr(krum_module, "_BLOCK", block)
    members = near(3.0, 11, seed=2, size=333)
    model = {"w": np.zeros(333, np.float32)}
    differences = np.stack([np.rint(arrays["w"].astype(np.float64) * 2.0**12) for arrays in members]).astype(object)
    files = files_of(members)
    found = krum_module._products(opened(file_of(model, {})), files, 2.0**12, workers)
    assert np.array_equal(found, differences @ differences.T)


def test_the_products_of_few_long_updates_are_exact():
    size = 2**18 + 1  # in one sum the squares would go beyond 2⁵³
    largest = 2**18 - 1
    files = files_of([{"w": np.full(size, largest, np.float32)}] * 3)
    found = krum_module._products(opened(file_of({"w": np.zeros(size, np.float32)}, {})), files, 1.0, 1)
    assert (found == size * largest**2).all()
