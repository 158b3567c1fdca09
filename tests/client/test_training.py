"""Local training does what the settings say: held against the same steps written out by hand, on a problem of two
weights and a bias."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import BatchNorm1d, Dropout, Linear, Module, Sequential
from torch.utils.data import TensorDataset

from client.task import Task
from client.training import derive_seed, evaluate, fit, seed_secretly
from exchange.spec import TrainSettings
from tests.support.tasks import task

# Least squares: the loss is the mean of (x·w + b − y)², its gradient is known.
LOSS = """
def loss(output, target):
    seen.append(target.flatten().tolist())
    return ((output - target) ** 2).mean()

def metrics(output, target):
    return {"error": ((output - target) ** 2).mean()}

seen = []
"""
GENERATOR = np.random.default_rng(3)
INPUTS = GENERATOR.standard_normal((8, 2)).astype(np.float32)
TARGETS = (INPUTS @ [[1.0], [-2.0]] + 0.5 + GENERATOR.standard_normal((8, 1))).astype(np.float32)
DATA = TensorDataset(torch.from_numpy(INPUTS), torch.from_numpy(TARGETS))
START = np.array([0.3, -0.1, 0.2])
RATE = 0.05
STEPS = 5

Vector = NDArray[np.float64]


@pytest.fixture
def squares(tmp_path: Path) -> Task:
    return task(tmp_path, LOSS)


def started() -> Linear:
    module = Linear(2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(START[None, :2]))
        module.bias.copy_(torch.from_numpy(START[2:]))
    return module


def weights(module: Linear) -> Vector:
    return np.append(module.weight.detach().double().numpy().ravel(), module.bias.detach().double().numpy())


def gradient(w: Vector) -> Vector:
    """Return the gradient of the loss over all examples."""
    rows = np.column_stack([INPUTS.astype(np.float64), np.ones(8)])
    return 2 / 8 * rows.T @ (rows @ w - TARGETS[:, 0])


def trained(squares: Task, **settings: Any) -> Vector:
    fit(squares, module := started(), DATA, TrainSettings(learning_rate=RATE, **settings), 1, STEPS, "cpu")
    return weights(module)


def by_hand(step: Callable[[Vector, int], Vector]) -> Vector:
    """Return the weights after STEPS steps, of which number n, from 1, subtracts step(w, n)."""
    w = START
    for number in range(1, STEPS + 1):
        w = w - step(w, number)
    return w


def test_sgd_steps_against_the_gradient(squares: Task):
    assert trained(squares) == pytest.approx(by_hand(lambda w, _: RATE * gradient(w)), abs=1e-6)


def test_momentum_adds_up_the_gradients_before(squares: Task):
    velocity = np.zeros(3)

    def step(w: Vector, _: int) -> Vector:
        nonlocal velocity
        velocity = 0.9 * velocity + gradient(w)
        return RATE * velocity

    assert trained(squares, momentum=0.9) == pytest.approx(by_hand(step), abs=1e-6)


def test_adam_is_adam(squares: Task):
    first, second = np.zeros(3), np.zeros(3)

    def step(w: Vector, number: int) -> Vector:
        nonlocal first, second
        first = 0.9 * first + 0.1 * gradient(w)
        second = 0.999 * second + 0.001 * gradient(w) ** 2
        return RATE * (first / (1 - 0.9**number)) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)

    assert trained(squares, optimizer="adam") == pytest.approx(by_hand(step), abs=1e-6)


def test_the_proximal_term_pulls_back_to_where_the_round_began(squares: Task):
    def step(w: Vector, _: int) -> Vector:
        return RATE * (gradient(w) + 1.5 * (w - START))

    pulled = trained(squares, proximal_mu=1.5)
    assert pulled == pytest.approx(by_hand(step), abs=1e-6)
    assert np.linalg.norm(pulled - START) < np.linalg.norm(trained(squares) - START)


def test_a_gradient_longer_than_agreed_is_shortened_to_that(squares: Task):
    limit = 0.5
    assert np.linalg.norm(gradient(START)) > limit

    def step(w: Vector, _: int) -> Vector:
        found = gradient(w)
        return RATE * found * min(1, limit / np.linalg.norm(found))

    assert trained(squares, gradient_clip=limit) == pytest.approx(by_hand(step), abs=1e-6)
    assert trained(squares, gradient_clip=1e6) == pytest.approx(trained(squares), abs=0)


def test_the_losses_are_those_of_the_epochs_without_the_pull(squares: Task):
    settings = TrainSettings(learning_rate=1e-30, proximal_mu=2.0, batch_size=3)
    losses = fit(squares, started(), DATA, settings, 1, 2, "cpu")
    residuals = INPUTS @ START[:2] + START[2] - TARGETS[:, 0]
    assert losses == [pytest.approx(np.mean(residuals**2), rel=1e-5)] * 2


def test_every_epoch_takes_every_example_once_in_batches_of_the_agreed_size(squares: Task):
    squares.module.seen.clear()
    fit(squares, started(), DATA, TrainSettings(learning_rate=RATE, batch_size=3), 1, 4, "cpu")
    batches = squares.module.seen
    assert [len(batch) for batch in batches] == [3, 3, 2] * 4
    epochs = [[value for batch in batches[3 * epoch : 3 * epoch + 3] for value in batch] for epoch in range(4)]
    assert all(sorted(epoch) == sorted(TARGETS[:, 0].tolist()) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1  # in another order each time


def test_without_a_batch_size_a_step_takes_all_examples(squares: Task):
    squares.module.seen.clear()
    fit(squares, started(), DATA, TrainSettings(learning_rate=RATE), 1, 3, "cpu")
    assert [len(batch) for batch in squares.module.seen] == [8] * 3


def test_training_is_a_function_of_its_seed(squares: Task):
    def result(seed: int) -> Vector:
        torch.manual_seed(np.random.default_rng().integers(1000))  # whatever ran before
        fit(squares, module := started(), DATA, TrainSettings(learning_rate=RATE, batch_size=3), seed, 2, "cpu")
        return weights(module)

    assert np.array_equal(result(1), result(1))
    assert not np.array_equal(result(1), result(2))


def test_dropout_drops_by_the_seed_while_it_trains_and_never_while_it_evaluates(squares: Task):
    def module() -> Module:
        return Sequential(Dropout(0.5), started())

    def result(seed: int) -> Vector:
        fit(squares, net := module(), DATA, TrainSettings(learning_rate=RATE), seed, 3, "cpu")
        assert net.training
        return weights(net[1])

    assert np.array_equal(result(1), result(1))
    assert not np.array_equal(result(1), result(2))
    assert not np.allclose(result(1), trained(squares))
    plain = evaluate(squares, started(), DATA, "cpu")
    net = module()
    assert evaluate(squares, net, DATA, "cpu") == plain
    fit(squares, net, DATA, TrainSettings(learning_rate=RATE), 1, 3, "cpu")
    assert np.array_equal(weights(net[1]), result(1))  # evaluation does not leave it off


def test_buffers_follow_the_data_in_training_and_stay_in_evaluation(squares: Task):
    net = Sequential(BatchNorm1d(2), started())
    fit(squares, net, DATA, TrainSettings(learning_rate=RATE), 1, 2, "cpu")
    mean, var = INPUTS.mean(axis=0), INPUTS.var(axis=0, ddof=1)
    assert net[0].running_mean.numpy() == pytest.approx(0.19 * mean, rel=1e-4)  # 1 − 0.9², torch's momentum
    assert net[0].running_var.numpy() == pytest.approx(0.81 + 0.19 * var, rel=1e-4)
    assert net[0].num_batches_tracked == 2
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    evaluate(squares, net, DATA, "cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_evaluation_is_over_all_examples_at_once_however_many_there_are(squares: Task):
    generator = np.random.default_rng(5)
    inputs = generator.standard_normal((2500, 2)).astype(np.float32)
    targets = generator.standard_normal((2500, 1)).astype(np.float32)
    found = evaluate(squares, started(), TensorDataset(torch.from_numpy(inputs), torch.from_numpy(targets)), "cpu")
    residuals = inputs @ START[:2] + START[2] - targets[:, 0]
    assert found == {"error": pytest.approx(np.mean(residuals**2), rel=1e-5)}


def test_frozen_weights_stay(squares: Task):
    module = started()
    module.bias.requires_grad_(False)
    fit(squares, module, DATA, TrainSettings(learning_rate=RATE, proximal_mu=0.1), 1, 3, "cpu")
    assert weights(module)[2] == pytest.approx(START[2], abs=1e-7)
    assert weights(module)[0] != pytest.approx(START[0], abs=1e-3)


def test_seeds_depend_on_every_part_and_fit_torch():
    seeds = {derive_seed(*parts) for parts in [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1), (0, "a"), ("0a", 1)]}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(7, "initial weights") == derive_seed(7, "initial weights")


def test_all_of_the_state_that_torch_draws_from_is_secret():
    """NumPy's generator of the same kind (not its numbers) says where a state's words have to be."""
    secret = np.random.default_rng(5).random(625)
    seed_secretly(lambda count: secret[-count:])
    theirs = np.random.MT19937()
    key = (secret[-624:] * 2.0**32).astype(np.uint32)
    theirs.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": 624}}
    expected = theirs.random_raw(700) % 2**31
    assert torch.empty(700, dtype=torch.int32).random_().tolist() == expected.tolist()
