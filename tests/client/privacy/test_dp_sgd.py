import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from client.privacy.audit import audit
from client.privacy.dp_sgd import DpSgd, dp_sgd, one_step
from client.privacy.example_level import UnsupportedModel, clipped_gradient_sum

SETTINGS = DpSgd(
    clip_norm=0.5,
    noise_multiplier=1.0,
    sampling_probability=0.25,
    steps=1,
    learning_rate=0.8,
    declared_examples=40,
)


def silence(count):
    return np.zeros(count)


def everyone(count):
    return np.zeros(count)


def nobody(count):
    return np.full(count, 1 - 2.0**-53)


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def batch(generator, size=12):
    x = torch.tensor(generator.standard_normal((size, 6)), dtype=torch.float32)
    return x, torch.tensor(generator.integers(3, size=size))


def flat(difference):
    return np.concatenate([tensor.ravel() for tensor in difference.values()])


def run(model, x, y, settings, normals=silence, uniforms=everyone):
    return dp_sgd(model, functional.cross_entropy, x, y, settings, normals=normals, uniforms=uniforms)


def test_a_step_divides_by_the_expected_number_of_declared_examples(generator):
    x, y = batch(generator)
    total = clipped_gradient_sum(network(), functional.cross_entropy, x, y, 0.5).tensors
    difference = run(network(), x, y, SETTINGS)
    for name, gradient in total.items():
        assert difference[name] == pytest.approx(-0.8 * gradient.numpy() / (0.25 * 40), abs=1e-6)


def test_an_example_takes_part_when_its_uniform_falls_below_the_probability(generator):
    x, y = batch(generator, 5)
    drawn = run(network(), x, y, SETTINGS, uniforms=lambda count: np.array([0.1, 0.25, 0.2499, 0.9, 0.0]))
    chosen = run(network(), x[[0, 2, 4]], y[[0, 2, 4]], SETTINGS)
    assert flat(drawn) == pytest.approx(flat(chosen), abs=1e-7)


def test_every_step_draws_its_own_sample_and_noise(generator):
    drawn = {"uniforms": 0, "normals": 0}

    def counted(name, values):
        def source(count):
            drawn[name] += count
            return values(count)

        return source

    x, y = batch(generator)
    settings = replace(SETTINGS, steps=7)
    run(network(), x, y, settings, counted("normals", silence), counted("uniforms", everyone))
    parameters = sum(parameter.numel() for parameter in network().parameters())
    assert drawn == {"uniforms": 7 * 12, "normals": 7 * parameters}


def test_a_step_without_examples_is_noise_of_the_sd_that_is_paid_for(normals):
    model, sd = nn.Linear(100, 100, bias=False), 0.5
    settings = replace(SETTINGS, learning_rate=10.0)
    difference = run(model, torch.zeros(5, 100), torch.zeros(5).long(), settings, normals, nobody)
    assert difference["weight"].std() == pytest.approx(10.0 * sd / (0.25 * 40), rel=0.02)
    assert abs(difference["weight"].mean()) < 4 * 1.0 * sd / 100


def test_the_noise_grows_with_its_multiplier(generator):
    def noise(multiplier):
        settings = replace(SETTINGS, noise_multiplier=multiplier)
        return flat(run(network(), *batch(generator), settings, np.ones, nobody))

    assert noise(6.0) == pytest.approx(6 * noise(1.0), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ({"momentum": 0.9}, lambda parameters: torch.optim.SGD(parameters, lr=0.8, momentum=0.9)),
        ({"optimizer": "adam"}, lambda parameters: torch.optim.Adam(parameters, lr=0.8)),
    ],
)
def test_the_optimizer_sees_the_noised_gradient_and_nothing_else(generator, settings, reference):
    x, y = batch(generator)
    found = flat(run(network(), x, y, replace(SETTINGS, steps=4, **settings)))
    model = network()
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    optimizer = reference(model.parameters())
    for _ in range(4):
        total = clipped_gradient_sum(model, functional.cross_entropy, x, y, 0.5).tensors
        for name, parameter in model.named_parameters():
            parameter.grad = (total[name] / 10).float()
        optimizer.step()
    moved = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - start
    assert found == pytest.approx(moved.numpy(), abs=1e-5)


def test_the_proximal_pull_goes_back_to_where_training_began():
    model = nn.Linear(50, 1, bias=False)
    steps = iter([1.0, 0.0, 0.0])

    def one_kick(count):
        return np.full(count, next(steps))

    settings = replace(SETTINGS, steps=3, proximal_mu=0.5)
    pulled = run(model, torch.zeros(1, 50), torch.zeros(1).long(), settings, one_kick, nobody)
    kick = -0.8 * 0.5 / 10
    assert pulled["weight"] == pytest.approx(kick * (1 - 0.8 * 0.5) ** 2, rel=1e-5)


def test_the_difference_is_what_became_of_the_model(generator, normals):
    model = network()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    difference = run(model, *batch(generator), replace(SETTINGS, steps=3), normals)
    for name, parameter in model.named_parameters():
        assert difference[name].dtype == np.float64
        assert (difference[name] == parameter.detach().double().numpy() - before[name].double().numpy()).all()


def test_frozen_parameters_stay_and_are_not_released(generator, normals):
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    assert set(run(model, *batch(generator), SETTINGS, normals)) == {"2.weight", "2.bias"}
    assert (model[0].weight == before).all()


def test_all_randomness_comes_from_the_sources(generator):
    x, y = batch(generator)

    def result(seed):
        torch.manual_seed(seed)
        np.random.seed(seed)
        model = network()
        sources = np.random.default_rng(5)
        return flat(run(model, x, y, replace(SETTINGS, steps=3), sources.standard_normal, sources.random))

    assert (result(0) == result(1)).all()


def test_a_model_learns_under_noise(generator, normals):
    x = torch.tensor(generator.standard_normal((400, 6)), dtype=torch.float32)
    y = (x[:, 0] > 0).long()
    model = network()
    settings = replace(SETTINGS, steps=60, learning_rate=2.0, declared_examples=400, sampling_probability=0.2)
    run(model, x, y, settings, normals, generator.random)
    assert (model(x).argmax(dim=1) == y).float().mean() > 0.9


def test_what_comes_out_is_audited_at_what_is_claimed():
    """One step, everybody takes part, z = 1/2: ε = 9.997 at δ = 1e-5. The canary's gradient points along one weight."""
    sources = np.random.default_rng(11)
    settings = replace(SETTINGS, sampling_probability=1.0, noise_multiplier=0.5)
    x, y = torch.tensor([[1.0]]), torch.zeros(1)

    def weight_after(canary_present):
        model = nn.Linear(1, 1, bias=False)
        taken = slice(0, 1) if canary_present else slice(0, 0)
        difference = dp_sgd(
            model,
            lambda output, target: -10 * output.sum(),
            x[taken],
            y[taken],
            settings,
            normals=sources.standard_normal,
            uniforms=sources.random,
        )
        return float(difference["weight"][0, 0])

    result = audit(weight_after, trials=1000, delta=1e-5)
    assert 7 < result.epsilon <= 9.998


def test_one_step_is_the_clipped_sum_over_the_declared_number(generator):
    x, y = batch(generator)
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    u = one_step(model, functional.cross_entropy, x, y, learning_rate=2.0, clip_norm=0.5, declared_examples=16)
    total = clipped_gradient_sum(model, functional.cross_entropy, x, y, 0.5).tensors
    for name, gradient in total.items():
        assert u[name].dtype == np.float64
        assert u[name] == pytest.approx(-2.0 / 16 * gradient.numpy(), rel=1e-12)
    assert all((tensor == before[name]).all() for name, tensor in model.state_dict().items())


def test_more_examples_than_declared_are_refused(generator):
    x, y = batch(generator, 41)
    with pytest.raises(ValueError, match="inputs: expected at most the 40 declared examples"):
        run(network(), x, y, SETTINGS)
    with pytest.raises(ValueError, match="inputs: expected at most the 40 declared examples"):
        one_step(network(), functional.cross_entropy, x, y, learning_rate=1.0, clip_norm=1.0, declared_examples=40)


def test_batch_statistics_are_refused(generator):
    with pytest.raises(UnsupportedModel, match="GroupNorm"):
        run(nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)), *batch(generator), SETTINGS)


@pytest.mark.parametrize(
    "bad",
    [
        {"clip_norm": 0.0},
        {"noise_multiplier": math.nan},
        {"sampling_probability": 0.0},
        {"sampling_probability": 1.5},
        {"steps": 0},
        {"learning_rate": math.inf},
        {"declared_examples": 1.5},
        {"optimizer": "lbfgs"},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"proximal_mu": -1.0},
        {"micro_batch": 0},
    ],
)
def test_a_bad_setting_is_refused_by_its_name(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        replace(SETTINGS, **bad)


def test_momentum_belongs_to_sgd():
    with pytest.raises(ValueError, match="momentum"):
        replace(SETTINGS, optimizer="adam", momentum=0.5)
