"""The auditor must come near an honest claim from below, and must catch a dishonest one."""

import math

import numpy as np
import pytest

from client.privacy.accounting import GaussianRelease, epsilon, gaussian_epsilon
from client.privacy.audit import audit, audited_epsilon
from client.privacy.lattice import release
from client.privacy.ou import calibrate

DELTA, TRIALS, CLIP = 1e-5, 1_000_000, 1.0


def claimed(multiplier, releases=1):
    return epsilon([GaussianRelease(multiplier)] * releases, DELTA)


def released(u, process, normals):
    """Return one coordinate, along the canary, of many releases of u; contracted, as the process leaves it."""
    return process.contraction * release(np.full(TRIALS, u), process.debiased_sd, normals)


@pytest.mark.parametrize("multiplier", [0.5, 1.0, 2.0, 4.0])
def test_an_honest_mechanism_is_audited_just_below_its_claim(normals, multiplier):
    process = calibrate(multiplier, sensitivity=2 * CLIP)
    result = audited_epsilon(released(CLIP, process, normals), released(-CLIP, process, normals), DELTA)
    assert 0.93 * claimed(multiplier) < result.epsilon <= claimed(multiplier)


def test_half_of_the_sensitivity_is_caught(normals):
    process = calibrate(2.0, sensitivity=CLIP)  # but a client is replaced: u moves by 2C
    result = audited_epsilon(released(CLIP, process, normals), released(-CLIP, process, normals), DELTA)
    assert claimed(2.0) == pytest.approx(1.99, abs=0.01)
    assert result.epsilon > 2 * claimed(2.0)


def test_the_stationary_noise_in_place_of_the_transitions_is_caught(normals):
    process = calibrate(1.0, sensitivity=2 * CLIP)
    stationary_multiplier = process.sigma / math.sqrt(2 * process.theta) / (2 * CLIP)
    result = audited_epsilon(released(CLIP, process, normals), released(-CLIP, process, normals), DELTA)
    assert result.epsilon > claimed(stationary_multiplier)


def test_the_same_noise_on_two_updates_is_caught(generator):
    process = calibrate(4.0, sensitivity=2 * CLIP)

    def difference_of_two(u):
        seeds = generator.integers(2**63, size=2)
        first = release(np.zeros(20_000), process.debiased_sd, np.random.default_rng(seeds).standard_normal)
        second = release(np.full(20_000, u), process.debiased_sd, np.random.default_rng(seeds).standard_normal)
        return second - first

    result = audited_epsilon(difference_of_two(CLIP), difference_of_two(-CLIP), DELTA)
    assert claimed(4.0, releases=2) == pytest.approx(1.36, abs=0.01)
    assert result.epsilon > 10 * claimed(4.0, releases=2)


def test_correlated_noise_composed_as_independent_is_caught(generator):
    rounds, multiplier, rho, trials = 100, 10.0, 0.9, 20_000
    signal = (-1.0) ** np.arange(rounds)  # the worst updates change sign every round
    noise = multiplier * generator.standard_normal((2 * trials, rounds))
    noise[:, 1:] *= math.sqrt(1 - rho**2)
    for r in range(1, rounds):
        noise[:, r] += rho * noise[:, r - 1]
    observed = noise + np.where(np.arange(2 * trials)[:, None] < trials, signal, 0.0)

    def whitened(path):
        return np.concatenate([path[..., :1], (path[..., 1:] - rho * path[..., :-1]) / math.sqrt(1 - rho**2)], axis=-1)

    scores = whitened(observed) @ whitened(signal)  # the likelihood ratio, but for constants
    result = audited_epsilon(scores[:trials], scores[trials:], DELTA)
    truth = gaussian_epsilon(math.sqrt(1 + (rounds - 1) * (1 + rho) / (1 - rho)) / multiplier, DELTA)
    assert claimed(multiplier, rounds) == pytest.approx(4.38, abs=0.01)
    assert truth == pytest.approx(27.2, abs=0.1)
    assert 2 * claimed(multiplier, rounds) < result.epsilon <= truth


def test_the_confidence_is_kept():
    """At 80 %, at most 20 % of audits of an honest mechanism may end above its claim; the bound is not tight."""
    generator = np.random.default_rng(7)
    above = 0
    for _ in range(200):
        scores_in, scores_out = generator.standard_normal((2, 400))
        above += audited_epsilon(scores_in + 1.0, scores_out, DELTA, confidence=0.8).epsilon > claimed(1.0)
    assert above < 0.2 * 200


def test_choosing_a_threshold_on_what_it_is_judged_by_is_avoided(generator):
    scores_in, scores_out = generator.standard_normal((2, 1000))
    result = audited_epsilon(scores_in, scores_out, DELTA)
    judged_in, judged_out = scores_in[500:], scores_out[500:]
    assert result.true_positive_rate < (judged_in > result.threshold).mean()
    assert result.false_positive_rate > (judged_out > result.threshold).mean()
    moved = np.concatenate([scores_in[:500], judged_in + 100])
    assert audited_epsilon(moved, scores_out, DELTA).threshold == result.threshold


def test_the_bounds_are_those_of_clopper_and_pearson():
    """0 of 10 and 10 of 10 at 95 % shared by two: the bound is 1 − 0.025^(1/10) = 0.3085 (any table)."""
    result = audited_epsilon(np.full(20, 1.0), np.zeros(20), DELTA)
    assert result.true_positive_rate == pytest.approx(0.6915, abs=1e-4)
    assert result.false_positive_rate == pytest.approx(0.3085, abs=1e-4)
    assert result.mu == pytest.approx(1.0003, abs=1e-3)


def test_a_release_function_is_played_in_both_worlds(generator):
    worlds = []

    def play(canary_present):
        worlds.append(canary_present)
        return 3.0 * canary_present + generator.standard_normal()

    result = audit(play, trials=2000, delta=DELTA)
    assert worlds.count(True) == worlds.count(False) == 2000
    assert 2 < result.mu <= 3


def test_a_blind_score_finds_nothing(generator):
    result = audited_epsilon(np.zeros(1000), np.zeros(1000), DELTA)
    assert (result.epsilon, result.mu) == (0.0, 0.0)


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((4, 2)), np.array([0.0, 1.0, np.nan, 2.0])])
def test_scores_that_cannot_be_judged_are_refused(scores):
    with pytest.raises(ValueError, match="scores_out: expected at least 4"):
        audited_epsilon(np.zeros(4), scores, DELTA)


def test_bad_values_are_refused_by_their_names():
    with pytest.raises(ValueError, match="delta"):
        audited_epsilon(np.zeros(4), np.zeros(4), 0.0)
    with pytest.raises(ValueError, match="confidence"):
        audited_epsilon(np.zeros(4), np.zeros(4), DELTA, confidence=1.0)
    with pytest.raises(ValueError, match="trials"):
        audit(float, 0, DELTA)
