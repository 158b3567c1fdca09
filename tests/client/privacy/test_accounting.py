import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from mpmath import mp

from client.privacy.accounting import (
    GaussianRelease,
    SampledSteps,
    calibrate_multiplier,
    calibrate_sampled,
    compose,
    epsilon,
    gaussian_delta,
    gaussian_epsilon,
)


def pld_epsilon(events, delta, relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE):
    accountant = PLDAccountant(relation)
    for event in events:
        accountant.compose(event)
    return accountant.get_epsilon(delta)


def poisson(probability, multiplier, steps):
    step = dp_accounting.PoissonSampledDpEvent(probability, dp_accounting.GaussianDpEvent(multiplier))
    return dp_accounting.SelfComposedDpEvent(step, steps)


def exact_delta(mu, epsilon):
    mp.dps = 60
    mu, epsilon = mp.mpf(mu), mp.mpf(epsilon)
    return mp.ncdf(mu / 2 - epsilon / mu) - mp.exp(epsilon) * mp.ncdf(-mu / 2 - epsilon / mu)


@pytest.mark.parametrize(
    ("rounds", "multiplier", "expected"),
    [(20, 4, 4.98331), (20, 10, 1.76006), (100, 10, 4.37718), (100, 5, 9.99726), (1, 3.7306, 1.00001)],
)
def test_the_check_values_come_out(rounds, multiplier, expected):
    assert epsilon([GaussianRelease(multiplier)] * rounds, 1e-5) == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("multipliers", [[4.0] * 20, [0.7, 3.0, 11.0], [2.0, 2.0, 9.5, 30.0]])
@pytest.mark.parametrize("delta", [1e-3, 1e-8])
def test_a_composition_is_what_the_pld_accountant_says(multipliers, delta):
    exact = epsilon([GaussianRelease(multiplier) for multiplier in multipliers], delta)
    assert exact == pytest.approx(
        pld_epsilon([dp_accounting.GaussianDpEvent(multiplier) for multiplier in multipliers], delta), rel=1e-6
    )


def test_the_renyi_accountant_is_never_below_the_exact_one():
    accountant = dp_accounting.rdp.RdpAccountant()
    accountant.compose(dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(4.0), 20))
    assert accountant.get_epsilon(1e-5) == pytest.approx(5.37773, abs=5e-6)
    assert accountant.get_epsilon(1e-5) > epsilon([GaussianRelease(4.0)] * 20, 1e-5)


@pytest.mark.parametrize("target", [0.05, 1.0, 8.0, 60.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_one_release_is_calibrated_as_analytically(target, delta):
    assert calibrate_multiplier(target, delta, 1) == pytest.approx(
        dp_accounting.get_sigma_gaussian(target, delta), rel=2e-9
    )


@pytest.mark.parametrize("mu", [1e-4, 0.01, 0.3, 1.0, 5.0, 40.0, 1e3])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_curve_is_exact_for_tiny_and_huge_mu(mu, share):
    at = share * (mu * mu / 2 + 6 * mu)
    assert gaussian_delta(mu, at) == pytest.approx(float(exact_delta(mu, at)), rel=1e-9)


@pytest.mark.parametrize("mu", [1e-3, 0.03, 0.5, 3.0, 20.0, 1e3, 1e6])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-12])
def test_epsilon_inverts_the_curve(mu, delta):
    found = gaussian_epsilon(mu, delta)
    if found == 0:
        assert gaussian_delta(mu, 0.0) <= delta
    else:
        assert float(exact_delta(mu, found)) == pytest.approx(delta, rel=1e-6 if mu < 1e4 else 1e-2)


def test_a_delta_that_hides_everything_costs_nothing():
    assert gaussian_epsilon(1e-3, 0.01) == 0.0
    assert epsilon([], 1e-5) == 0.0


def test_composition_adds_the_squares():
    assert compose([2.0, 4.0]) == pytest.approx(math.sqrt(1 / 4 + 1 / 16))
    assert compose([]) == 0.0
    assert compose([1e-200]) == pytest.approx(1e200)


@pytest.mark.parametrize("target", [0.001, 0.01, 0.5, 3.0, 8.0, 50.0, 1e12])
@pytest.mark.parametrize("rounds", [1, 30, 10_000])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-10])
def test_a_calibrated_sequence_ends_just_within_its_budget(target, rounds, delta):
    spent = epsilon([GaussianRelease(calibrate_multiplier(target, delta, rounds))] * rounds, delta)
    assert target * (1 - 1e-7) < spent <= target


@pytest.mark.parametrize(("multiplier", "expected"), [(1.0, 9.97), (2.0, 3.36)])
def test_twenty_rounds_of_ten_sampled_steps_cost_what_the_pld_says(multiplier, expected):
    spent = epsilon([SampledSteps(0.1, multiplier, 10)] * 20, 1e-5)
    assert spent == pytest.approx(expected, abs=5e-3)
    assert spent == pld_epsilon([poisson(0.1, multiplier, 200)], 1e-5)


def test_sampled_steps_and_releases_are_composed_together():
    events = [SampledSteps(0.1, 1.0, 10), GaussianRelease(5.0), SampledSteps(0.1, 1.0, 10), GaussianRelease(3.0)]
    gaussian = dp_accounting.GaussianDpEvent(1 / compose([5.0, 3.0]))
    assert epsilon(events, 1e-5) == pytest.approx(pld_epsilon([gaussian, poisson(0.1, 1.0, 20)], 1e-5), rel=1e-6)
    assert epsilon(events, 1e-5) == epsilon(events[::-1], 1e-5)


@pytest.mark.parametrize("multiplier", [1 / 9.9, 1 / 10.1, 1e-3, 1e-6])
def test_steps_beside_a_release_that_protects_nobody_cost_no_less_than_it_and_little_more(multiplier):
    alone = epsilon([GaussianRelease(multiplier)], 1e-5)
    steps = epsilon([SampledSteps(0.1, 1.0, 10)], 1e-5)
    both = epsilon([GaussianRelease(multiplier), SampledSteps(0.1, 1.0, 10)], 1e-5)
    assert alone < both < 1.1 * (alone + steps)
    if multiplier < 1 / 10:  # basic composition (Dwork, Roth 2014, theorem 3.16), with half of δ for each kind
        assert both == gaussian_epsilon(1 / multiplier, 5e-6) + epsilon([SampledSteps(0.1, 1.0, 10)], 5e-6)


def test_steps_that_take_everybody_are_releases():
    assert epsilon([SampledSteps(1.0, 8.0, 16)], 1e-5) == epsilon([GaussianRelease(2.0)], 1e-5)
    assert calibrate_sampled(2.0, 1e-5, 1.0, 16) == calibrate_multiplier(2.0, 1e-5, 16)


@pytest.mark.parametrize(
    ("target", "probability", "steps"), [(8.0, 0.1, 200), (1.0, 0.5, 10), (2.0, 0.9, 1), (0.5, 0.01, 1000)]
)
def test_calibrated_steps_end_just_within_their_budget(target, probability, steps):
    multiplier = calibrate_sampled(target, 1e-5, probability, steps)
    assert epsilon([SampledSteps(probability, multiplier, steps)], 1e-5) <= target
    assert epsilon([SampledSteps(probability, multiplier / 1.0011, steps)], 1e-5) > target


def test_a_budget_that_asks_for_next_to_no_noise_gets_the_smallest_multiplier():
    assert calibrate_sampled(50.0, 1e-2, 0.001, 1) == 0.2


def test_a_budget_below_what_the_accountant_can_show_is_refused():
    with pytest.raises(ValueError, match="epsilon: expected one that the accountant can show for 100000 steps"):
        calibrate_sampled(1e-3, 1e-5, 0.1, 100_000)


BAD = [0, -1.0, math.nan, math.inf, "1"]


@pytest.mark.parametrize("value", BAD)
def test_bad_values_are_refused_by_their_names(value):
    with pytest.raises(ValueError, match="noise_multiplier"):
        GaussianRelease(value)
    with pytest.raises(ValueError, match="noise_multiplier"):
        SampledSteps(0.1, value, 1)
    with pytest.raises(ValueError, match="sampling_probability"):
        SampledSteps(value, 1.0, 1)
    with pytest.raises(ValueError, match="steps"):
        SampledSteps(0.1, 1.0, value)
    with pytest.raises(ValueError, match="noise_multiplier"):
        compose([1.0, value])
    with pytest.raises(ValueError, match="mu"):
        gaussian_epsilon(value, 1e-5)
    with pytest.raises(ValueError, match="delta"):
        epsilon([GaussianRelease(1.0)], value)
    with pytest.raises(ValueError, match="epsilon"):
        calibrate_multiplier(value, 1e-5, 1)
    with pytest.raises(ValueError, match="rounds"):
        calibrate_multiplier(1.0, 1e-5, value)
    with pytest.raises(ValueError, match="sampling_probability"):
        calibrate_sampled(1.0, 1e-5, value, 1)


def test_a_probability_above_one_and_a_delta_of_one_are_refused():
    with pytest.raises(ValueError, match="sampling_probability"):
        SampledSteps(1.1, 1.0, 1)
    with pytest.raises(ValueError, match="delta"):
        gaussian_epsilon(1.0, 1.0)
