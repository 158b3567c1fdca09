import inspect

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import kstest

from client.privacy import noise
from client.privacy.noise import system_normals, system_uniforms

BYTES = {
    "zeros": b"\x00" * 8,
    "ones": b"\xff" * 8,
    "largest positive word": b"\xff" * 7 + b"\x7f",
    "largest negative word": b"\x00" * 7 + b"\x80",
}


def test_the_systems_normals_are_normal():
    assert kstest(system_normals(200_000), "norm").pvalue > 1e-7


def test_the_systems_normals_are_independent_of_their_neighbours():
    draws = system_normals(200_001)
    for of in (lambda x: x, np.abs):
        assert abs(np.corrcoef(of(draws[:-1]), of(draws[1:]))[0, 1]) < 6 / np.sqrt(200_000)


def test_the_systems_uniforms_are_uniform_below_one():
    draws = system_uniforms(200_000)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert kstest(draws, "uniform").pvalue > 1e-7


@pytest.mark.parametrize("pattern", BYTES)
def test_no_pattern_of_bits_gives_an_infinity(monkeypatch, pattern):
    monkeypatch.setattr(noise.os, "urandom", lambda size: BYTES[pattern] * (size // 8))
    assert np.abs(system_normals(3)).max() < 12
    assert 0 <= system_uniforms(1)[0] < 1


def test_both_tails_are_equally_fine(monkeypatch):
    def extremes(_):
        return BYTES["largest positive word"] + BYTES["largest negative word"]

    monkeypatch.setattr(noise.os, "urandom", extremes)
    high, low = system_normals(2)
    assert high > 8
    assert low < -8


def test_far_out_no_lattice_point_is_out_of_reach(monkeypatch):
    """Draws at one place of the coarse grid, 5.8 sd out, differ by less than the lattice's step of 2⁻³⁰."""
    coarse = np.int64(2**52 - 2**53 * ndtr(-5.8)) << 11
    words = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 100_000)
    monkeypatch.setattr(noise, "_words", lambda count: np.full(count, coarse) if first.pop() else words)
    first = [False, True]
    draws = np.sort(system_normals(len(words)))
    assert -draws[0] == pytest.approx(5.8, abs=1e-3) or draws[0] == pytest.approx(5.8, abs=1e-3)
    assert draws[-1] - draws[0] > 2.0**-30
    assert np.diff(draws).max() < 2.0**-30


def test_nobody_can_seed_the_noise():
    np.random.seed(0)
    first = system_normals(4)
    np.random.seed(0)
    assert (system_normals(4) != first).all()
    assert list(inspect.signature(system_normals).parameters) == ["count"]
