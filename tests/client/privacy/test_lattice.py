import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import kstest, norm

from client.privacy.clipping import clip_l2
from client.privacy.lattice import lattice_step, padded_sensitivity, release, release_tensors, rounding_slack


def silence(count):
    return np.zeros(count)


def repeated(seed):
    return np.random.default_rng(seed).standard_normal


def squared_norm(vector):
    return sum(Fraction(float(value)) ** 2 for value in vector)


@pytest.mark.parametrize("dimension", [1, 7, 1000])
@pytest.mark.parametrize("noise_sd", [1e-3, 0.77, 40.0])
def test_what_is_clipped_never_exceeds_the_clip_norm_on_the_lattice(generator, dimension, noise_sd):
    for _ in range(20):
        u = generator.standard_normal(dimension) * 10 ** generator.uniform(-2, 3)
        clipped = clip_l2({"u": u}, 0.3).tensors["u"]
        assert squared_norm(release(clipped, noise_sd, silence)) <= Fraction(0.3) ** 2


def test_rounding_is_towards_zero_and_exact(generator):
    u, step = generator.standard_normal(1000), lattice_step(0.5)
    for value, rounded in zip(u, release(u, 0.5, silence), strict=True):
        assert Fraction(float(rounded)) == math.trunc(Fraction(float(value)) / Fraction(step)) * Fraction(step)


def test_every_release_lies_on_the_lattice_whatever_was_released(generator, normals):
    step = lattice_step(0.3)
    for u in (np.zeros(1000), np.ones(1000), generator.standard_normal(1000)):
        steps = release(u, 0.3, normals) / step
        assert (steps == np.rint(steps)).all()
        assert len(np.unique(steps % 4)) == 4


def test_the_noise_does_not_depend_on_what_it_is_put_on(generator):
    u = generator.standard_normal(100_000)
    noise = release(np.zeros_like(u), 0.7, repeated(1))
    assert (release(u, 0.7, repeated(1)) == noise + release(u, 0.7, silence)).all()


@pytest.mark.parametrize("u", [0.0, 2.5])
def test_the_noise_is_gaussian_with_the_sd_asked_for(normals, u):
    assert kstest(release(np.full(100_000, u), 0.7, normals), norm(u, 0.7).cdf).pvalue > 0.01


def test_a_frozen_layer_is_released_as_noise(normals):
    released = release(np.zeros(50_000), 0.7, normals)
    assert np.count_nonzero(released) == 50_000
    assert len(np.unique(released)) > 49_900


def test_noise_is_drawn_once_for_every_parameter():
    drawn = []

    def source(count):
        drawn.append(count)
        return np.zeros(count)

    release(np.zeros(100_001), 1.0, source)
    assert sum(drawn) == 100_001
    assert max(drawn) < 100_001


@pytest.mark.parametrize("noise_sd", [1e-200, 2.0**-5, 0.3, 1.0, 3.0, 1e200])
def test_the_step_is_a_power_of_two_just_below_the_noise(noise_sd):
    step = lattice_step(noise_sd)
    assert math.frexp(step)[0] == 0.5
    assert noise_sd * 2.0**-31 < step <= noise_sd * 2.0**-30


def test_the_slack_covers_what_rounding_adds_to_the_distance_of_neighbours(generator):
    dimension, noise_sd, sensitivity = 1000, 1e6, 1e-3  # a step that is coarse for these neighbours
    slack = rounding_slack(dimension, noise_sd)
    for _ in range(50):
        u = generator.standard_normal(dimension) * 1e-3
        step = generator.standard_normal(dimension)
        neighbour = u + sensitivity * step / np.linalg.norm(step)
        distance = np.linalg.norm(release(u, noise_sd, silence) - release(neighbour, noise_sd, silence))
        assert distance > sensitivity
        assert distance <= sensitivity + slack


def test_the_slack_is_two_steps_in_every_dimension():
    assert rounding_slack(10**6, 1.0) == 2 * 2.0**-30 * 1000


@pytest.mark.parametrize("dimension", [1, 650, 10**6, 10**9])
@pytest.mark.parametrize("multiplier", [0.3, 4.0, 300.0])
def test_the_padded_sensitivity_pays_for_its_own_rounding(dimension, multiplier):
    padded = padded_sensitivity(0.02, multiplier, dimension)
    assert padded >= 0.02 + rounding_slack(dimension, multiplier * padded)
    assert padded == pytest.approx(0.02, rel=5e-6 * multiplier * math.sqrt(dimension / 10**6))


def test_tensors_keep_their_names_and_shapes(normals):
    released = release_tensors({"a": np.zeros((2, 3)), "b": np.zeros(()), "c": np.zeros((0, 4))}, 1.0, normals)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in released.items()} == {
        "a": ((2, 3), np.float64),
        "b": ((), np.float64),
        "c": ((0, 4), np.float64),
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, 2.0**40])
def test_a_value_that_does_not_fit_the_lattice_is_refused(value):
    with pytest.raises(ValueError, match="difference: expected finite values below"):
        release(np.array([0.0, value]), 1.0, silence)


def test_the_largest_values_that_fit_are_released():
    assert release(np.array([2.0**31, -(2.0**31)]), 1.0, silence).tolist() == [2.0**31, -(2.0**31)]


@pytest.mark.parametrize("difference", [np.zeros(3, np.float32), np.zeros((3, 1)), np.zeros(3, np.int64)])
def test_another_shape_or_type_is_refused(difference):
    with pytest.raises(ValueError, match=r"difference: expected shape \(d,\) in float64"):
        release(difference, 1.0, silence)


@pytest.mark.parametrize("noise_sd", [0, -1.0, math.nan, math.inf, 1e-300, 1e300])
def test_a_bad_noise_sd_is_refused(noise_sd):
    with pytest.raises(ValueError, match="noise_sd"):
        release(np.zeros(3), noise_sd, silence)


def test_more_noise_than_the_lattice_can_pay_for_is_refused():
    with pytest.raises(ValueError, match="noise_multiplier and dimension"):
        padded_sensitivity(1.0, 1e9, 10**6)
