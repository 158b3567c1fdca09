import math
from fractions import Fraction

import numpy as np
import pytest

from client.privacy.clipping import clip_l2


def joint_norm(tensors):
    return math.sqrt(sum(float(np.square(tensor).sum()) for tensor in tensors.values()))


def test_one_norm_is_taken_over_all_tensors():
    clipped = clip_l2({"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}, 1.0)
    assert clipped.norm == 5.0
    assert clipped.tensors["a"] == pytest.approx([0.6, 0.0])
    assert clipped.tensors["b"] == pytest.approx(np.array([[0.8]]))


def test_what_is_within_the_clip_norm_is_left_as_it_is(generator):
    update = {"a": generator.standard_normal((3, 4)), "b": generator.standard_normal(5)}
    clipped = clip_l2(update, 100.0)
    assert clipped.norm == pytest.approx(joint_norm(update))
    assert all((clipped.tensors[name] == update[name]).all() for name in update)


def test_the_norm_is_at_most_the_clip_norm_to_the_last_bit(generator):
    for _ in range(100):
        update = generator.standard_normal(300) * 10 ** generator.uniform(-1.5, 1.5)
        clipped = clip_l2({"u": update}, 1.7).tensors["u"]
        assert sum(Fraction(float(value)) ** 2 for value in clipped) <= Fraction(1.7) ** 2
        assert np.linalg.norm(clipped) == pytest.approx(min(1.7, np.linalg.norm(update)), rel=1e-11)


def test_nothing_stays_nothing():
    clipped = clip_l2({"a": np.zeros(3), "b": np.zeros((0, 2))}, 1.0)
    assert (clipped.norm, clipped.finite) == (0.0, True)
    assert (clipped.tensors["a"] == 0).all()
    assert clip_l2({}, 1.0).tensors == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_not_finite_becomes_zero_in_every_tensor(bad):
    clipped = clip_l2({"a": np.array([1.0, bad]), "b": np.array([2.0])}, 1.0)
    assert not clipped.finite
    assert clipped.norm == 0.0
    assert {name: tensor.tolist() for name, tensor in clipped.tensors.items()} == {"a": [0.0, 0.0], "b": [0.0]}


@pytest.mark.parametrize("size", [1e200, 1.7e308])
def test_values_whose_square_overflows_are_clipped(size):
    clipped = clip_l2({"u": np.array([size, -size, 0.0])}, 2.0)
    assert clipped.finite
    assert clipped.tensors["u"] == pytest.approx([math.sqrt(2), -math.sqrt(2), 0.0])


def test_values_whose_square_vanishes_are_clipped():
    clipped = clip_l2({"u": np.array([3e-200, 4e-200])}, 5e-201)
    assert clipped.norm == pytest.approx(5e-200)
    assert clipped.tensors["u"] == pytest.approx([3e-201, 4e-201], rel=1e-9, abs=0)


def test_the_result_is_float64_and_the_argument_is_untouched():
    update = {"u": np.array([3.0, 4.0]), "half": np.array([12.0], np.float16), "scalar": np.array(5, np.int64)}
    for clip_norm in (1.0, 100.0):
        clipped = clip_l2(update, clip_norm).tensors
        assert {tensor.dtype for tensor in clipped.values()} == {np.dtype(np.float64)}
        assert clipped["scalar"].shape == ()
        assert not np.shares_memory(clipped["u"], update["u"])
        assert update["u"].tolist() == [3.0, 4.0]


@pytest.mark.parametrize("clip_norm", [0, -1.0, math.nan, math.inf])
def test_a_bad_clip_norm_is_refused(clip_norm):
    with pytest.raises(ValueError, match="clip_norm: expected"):
        clip_l2({"u": np.ones(2)}, clip_norm)
