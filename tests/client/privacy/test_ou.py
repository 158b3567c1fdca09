import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import rdp_privacy_accountant
from mpmath import mp
from scipy.stats import kstest, norm

from client.privacy.accounting import GaussianRelease, calibrate_multiplier, epsilon
from client.privacy.lattice import release
from client.privacy.ou import OrnsteinUhlenbeck, calibrate, release_scale


def euler_maruyama(process, start, steps, paths, generator):
    step = process.time / steps
    x = np.full(paths, start)
    for _ in range(steps):
        x += -process.theta * x * step + process.sigma * math.sqrt(step) * generator.standard_normal(paths)
    return x


def test_a_contracted_release_follows_the_exact_transition(normals):
    process, u = OrnsteinUhlenbeck(theta=1.0, time=0.7, sigma=2.0), 3.0
    released = process.contraction * release(np.full(50_000, u), process.debiased_sd, normals)
    a = math.exp(-0.7)
    s = 2.0 * math.sqrt((1 - math.exp(-1.4)) / 2)
    assert kstest(released, norm(a * u, s).cdf).pvalue > 0.01


def test_a_fine_discretisation_follows_the_transition_and_a_coarse_one_does_not(generator):
    process, start = OrnsteinUhlenbeck(theta=1.0, time=1.0, sigma=1.0), 1.0
    law = norm(process.contraction * start, process.noise_sd).cdf
    assert kstest(euler_maruyama(process, start, 256, 20_000, generator), law).pvalue > 0.01
    assert kstest(euler_maruyama(process, start, 4, 20_000, generator), law).pvalue < 1e-6


@pytest.mark.parametrize("theta", [0.0, 1e-9, 0.3, 2.0])
def test_two_times_one_after_the_other_are_their_sum(theta):
    first, second = OrnsteinUhlenbeck(theta, 0.4, 1.5), OrnsteinUhlenbeck(theta, 1.1, 1.5)
    both = OrnsteinUhlenbeck(theta, 1.5, 1.5)
    assert first.contraction * second.contraction == pytest.approx(both.contraction, rel=1e-14)
    variance = (second.contraction * first.noise_sd) ** 2 + second.noise_sd**2
    assert math.sqrt(variance) == pytest.approx(both.noise_sd, rel=1e-14)


def test_a_path_that_goes_on_after_the_release_costs_nothing_more():
    early, late = OrnsteinUhlenbeck(1.0, 0.25, 3.0), OrnsteinUhlenbeck(1.0, 0.5, 3.0)
    assert late.noise_multiplier(2.0) > early.noise_multiplier(2.0)


def test_after_a_long_time_the_stationary_law_is_reached():
    assert OrnsteinUhlenbeck(theta=0.5, time=200.0, sigma=3.0).noise_sd == pytest.approx(3.0, rel=1e-14)


@pytest.mark.parametrize("theta", [5e-324, 1e-300, 1e-17, 1e-9, 1e-3, 1.0, 30.0])
def test_every_rate_is_computed_to_the_last_digits(theta):
    time, sigma = 0.25, 2.0
    mp.dps = 400
    process = OrnsteinUhlenbeck(theta, time, sigma)
    exponent = 2 * mp.mpf(theta) * mp.mpf(time)
    assert process.noise_sd == pytest.approx(
        float(sigma * mp.sqrt(-mp.expm1(-exponent) / (2 * mp.mpf(theta)))), rel=1e-14
    )
    assert process.debiased_sd == pytest.approx(
        float(sigma * mp.sqrt(mp.expm1(exponent) / (2 * mp.mpf(theta)))), rel=1e-14
    )


def test_without_reversion_it_is_brownian_motion():
    process = OrnsteinUhlenbeck(theta=0.0, time=0.25, sigma=2.0)
    assert (process.contraction, process.noise_sd, process.debiased_sd) == (1.0, 1.0, 1.0)
    assert calibrate(3.0, 2.0, theta=0.0, time=0.25).sigma == 12.0


@pytest.mark.parametrize("theta", [0.0, 1e-12, 1.0, 4.0])
@pytest.mark.parametrize("multiplier", [0.3, 3.2876, 100.0])
def test_calibration_gives_the_multiplier_that_was_asked_for(theta, multiplier):
    assert calibrate(multiplier, 0.02, theta, 0.7).noise_multiplier(0.02) == pytest.approx(multiplier, rel=1e-14)


def test_the_worked_example_comes_out():
    multiplier = calibrate_multiplier(8.0, 1e-5, 30)
    process = calibrate(multiplier, 2.0)
    assert math.sqrt(30) / multiplier == pytest.approx(1.6660, abs=1e-4)
    assert multiplier == pytest.approx(3.2876, abs=1e-4)
    assert process.sigma == pytest.approx(11.545, abs=1e-3)
    assert process.contraction == pytest.approx(0.7788, abs=1e-4)
    assert process.noise_sd == pytest.approx(5.1208, abs=1e-4)
    assert epsilon([GaussianRelease(process.noise_multiplier(2.0))] * 30, 1e-5) == pytest.approx(8.0, abs=1e-7)


@pytest.mark.parametrize(
    ("mistake", "claim"),
    [
        ("the stationary sd in place of s/a", 6.18),
        ("half of the sensitivity", 3.55),
        ("the contraction forgotten", 10.86),
    ],
)
def test_a_mistaken_multiplier_would_claim_something_else(mistake, claim):
    process = calibrate(calibrate_multiplier(8.0, 1e-5, 30), 2.0)
    multiplier = {
        "the stationary sd in place of s/a": process.sigma / math.sqrt(2 * process.theta) / 2.0,
        "half of the sensitivity": process.noise_multiplier(1.0),
        "the contraction forgotten": process.noise_sd / 2.0,
    }[mistake]
    assert epsilon([GaussianRelease(multiplier)] * 30, 1e-5) == pytest.approx(claim, abs=5e-3)


def test_the_renyi_divergence_of_the_paper_is_that_of_the_gaussian_mechanism():
    process, sensitivity, orders = OrnsteinUhlenbeck(0.8, 0.6, 4.0), 1.5, [1.5, 2.0, 8.0, 64.0]
    rho_squared = process.sigma**2 / 2
    growth = math.expm1(2 * process.theta * process.time)
    paper = [order * process.theta * sensitivity**2 / (2 * rho_squared * growth) for order in orders]
    accountant = rdp_privacy_accountant.RdpAccountant(orders)
    accountant.compose(dp_accounting.GaussianDpEvent(process.noise_multiplier(sensitivity)))
    expected, _ = rdp_privacy_accountant.compute_epsilon(orders, paper, 1e-5)
    assert accountant.get_epsilon(1e-5) == pytest.approx(expected, rel=1e-9)


def test_the_scale_is_one_or_the_contraction():
    process = OrnsteinUhlenbeck(1.0, 0.25, 2.0)
    public = {"dimension": 10, "clients": 3, "update_bound": 1.0}
    assert release_scale("exact", process, **public) == 1.0
    assert release_scale("none", process, **public) == process.contraction


def test_the_optimal_scale_has_the_least_error(generator):
    process, dimension, clients, bound = OrnsteinUhlenbeck(1.0, 0.25, 0.7), 50, 4, 2.0
    u = generator.standard_normal(dimension)
    u *= bound / np.linalg.norm(u)
    noise = process.debiased_sd * generator.standard_normal((20_000, clients, dimension)).mean(axis=1)
    best = release_scale("optimal", process, dimension=dimension, clients=clients, update_bound=bound)

    def error(scale):
        return np.square(scale * (u + noise) - u).sum(axis=1).mean()

    assert 0 < best < 1
    assert error(best) < min(error(best * 1.1), error(best / 1.1))
    k = dimension * process.noise_multiplier(0.3) ** 2 * 0.3**2 / (clients * bound**2)
    assert best == pytest.approx(1 / (1 + k))


def bad_values(*names):
    values = [0, -1.0, math.nan, math.inf, "1", None, True]
    return [(name, value) for name in names for value in values if (name, value) != ("theta", 0)]


@pytest.mark.parametrize(("name", "value"), bad_values("theta", "time", "sigma"))
def test_a_bad_parameter_is_refused_by_its_name(name, value):
    with pytest.raises(ValueError, match=f"{name}.*expected.*got"):
        OrnsteinUhlenbeck(**{"theta": 1.0, "time": 0.25, "sigma": 1.0, name: value})


@pytest.mark.parametrize(("name", "value"), bad_values("noise_multiplier", "sensitivity", "theta", "time"))
def test_calibration_refuses_a_bad_value_by_its_name(name, value):
    with pytest.raises(ValueError, match=f"{name}.*expected.*got"):
        calibrate(**{"noise_multiplier": 1.0, "sensitivity": 1.0, "theta": 1.0, "time": 0.25, name: value})


def test_a_time_after_which_nothing_is_left_is_refused():
    with pytest.raises(ValueError, match="theta and time"):
        OrnsteinUhlenbeck(1.0, 400.0, 1.0)


@pytest.mark.parametrize(
    "bad", [{"debias": "exactly"}, {"dimension": 0}, {"clients": 2.5}, {"update_bound": math.nan}, {"dimension": True}]
)
def test_the_scale_refuses_a_bad_value_by_its_name(bad):
    arguments = {"debias": "optimal", "dimension": 10, "clients": 3, "update_bound": 1.0, **bad}
    with pytest.raises(ValueError, match=next(iter(bad))):
        release_scale(mechanism=OrnsteinUhlenbeck(1.0, 0.25, 2.0), **arguments)
