"""From what was agreed to what a round does: the whole federation costs what was agreed, and neighbours are no further
apart than the noise is made for."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from client.privacy import plan
from client.privacy.account import Account
from client.privacy.accounting import GaussianRelease, SampledSteps
from client.privacy.convex import full_batch_steps, refuse_unknown_convexity
from client.privacy.ledger import Ledger
from client.privacy.plan import DpSgdPlan, OuPlan, Plan, make_plan
from exchange.errors import InvalidTensorFile, PrivacyError, SettingsError, UnsupportedModel
from exchange.spec import FederationSettings
from tests.support.buckets import Bucket, Clock
from tests.support.private import DELTA, EPSILON, gaussian_epsilon, oracle_epsilon
from tests.support.settings import PRIVATE, client_settings, federation_settings

EXAMPLE = PRIVATE | {"unit": "example"}
DP_SGD = {
    "mechanism": "dp-sgd",
    "epsilon": EPSILON,
    "delta": DELTA,
    "clip_norm": 0.5,
    "sampling_probability": 0.5,
}
NOISED = {"share": "noised", "noise_multiplier": 20.0}
VALIDATED = [{"id": "birch", "examples": 50, "validation_examples": 40}]


def settings(privacy: dict[str, Any], **sections: Any) -> FederationSettings:
    return federation_settings(("birch",), quorum=1, privacy=privacy, **sections)


def plan_of(privacy: dict[str, Any], **sections: Any) -> Plan:
    found = make_plan(settings(privacy, **sections), "birch")
    assert found is not None
    return found


# What the whole federation costs.


@pytest.mark.parametrize("rounds", [1, 30, 1000])
@pytest.mark.parametrize(
    ("privacy", "sections"),
    [
        (PRIVATE, {}),
        (EXAMPLE, {}),
        (EXAMPLE | {"adjacency": "replace-one"}, {}),
        (EXAMPLE, {"train": {"local_epochs": 5}}),
        (EXAMPLE | {"theta": 0.0, "time": 3.0, "debias": "none"}, {}),
        (EXAMPLE, {"metrics": {"share": "noised", "noise_multiplier": 1e3}, "client": VALIDATED}),
    ],
    ids=["client", "example", "replaced", "several steps", "another process", "with a metric"],
)
def test_the_whole_federation_spends_what_was_agreed_and_not_a_trifle_less(
    privacy: dict[str, Any], sections: dict[str, Any], rounds: int
):
    found = plan_of(privacy, rounds=rounds, **sections)
    multipliers = [event.noise_multiplier for event in found.events] * rounds
    assert all(isinstance(event, GaussianRelease) for event in found.events)
    assert len(found.events) == 1 + ("metrics" in sections)
    assert EPSILON * (1 - 1e-6) < gaussian_epsilon(multipliers) <= EPSILON


def test_the_worked_example_of_the_design_comes_out():
    """ε = 8, δ = 1e-5, 30 rounds, C = 1, Δ = 2C, θ = 1, t = 0.25."""
    _, statement = plan_of(PRIVATE, rounds=30).release({"w": np.zeros(4)}, np.zeros)
    assert statement["noise_multiplier"] == pytest.approx(3.2876, abs=1e-4)
    assert statement["sigma"] == pytest.approx(11.545, abs=1e-3)
    assert statement["contraction"] == pytest.approx(0.7788, abs=1e-4)


def test_a_loud_metric_leaves_more_of_the_budget_to_the_weights():
    alone = plan_of(EXAMPLE).event.noise_multiplier
    multipliers = [
        plan_of(
            EXAMPLE, metrics={"share": "noised", "noise_multiplier": multiplier}, client=VALIDATED
        ).event.noise_multiplier
        for multiplier in (2.0, 20.0, 1e6)
    ]
    assert multipliers[0] > multipliers[1] > multipliers[2] == pytest.approx(alone, rel=1e-9)


def test_a_metric_that_would_cost_all_of_the_budget_is_refused_by_name():
    alone = plan_of(EXAMPLE).event.noise_multiplier
    for multiplier in (alone, 0.9 * alone):
        metrics = {"share": "noised", "noise_multiplier": multiplier}
        with pytest.raises(PrivacyError, match=r"settings of orchard .*metrics.noise_multiplier: 3 metrics at"):
            plan_of(EXAMPLE, metrics=metrics, client=VALIDATED)


@pytest.mark.parametrize(("epochs", "steps"), [(1, 2), (3, 6)])
def test_dp_sgd_spends_nearly_what_was_agreed(epochs: int, steps: int):
    found = plan_of(DP_SGD, rounds=6 // steps, train={"local_epochs": epochs})
    assert found.events == (SampledSteps(0.5, found.event.noise_multiplier, steps),)
    assert 0.97 * EPSILON < oracle_epsilon([], [(0.5, found.event.noise_multiplier, 6)]) <= EPSILON
    assert found.sensitivity == 0.5


def test_dp_sgd_without_sampling_is_a_sequence_of_gaussian_releases():
    found = plan_of(DP_SGD | {"sampling_probability": 1.0}, rounds=5, train={"local_epochs": 4})
    assert isinstance(found, DpSgdPlan)
    assert found.event.steps == 4
    assert EPSILON * (1 - 1e-6) < gaussian_epsilon([found.event.noise_multiplier] * 20) <= EPSILON


@pytest.mark.parametrize(("rate", "epochs", "steps"), [(0.4, 1, 2), (0.3, 1, 3), (1.0, 1, 1), (0.1, 5, 50)])
def test_a_round_of_dp_sgd_takes_about_its_epochs_of_steps(
    monkeypatch: pytest.MonkeyPatch, rate: float, epochs: int, steps: int
):
    priced = []
    monkeypatch.setattr(plan, "_calibrate_sampled", lambda *numbers: priced.append(numbers) or 1.0)
    found = plan_of(DP_SGD | {"sampling_probability": rate}, rounds=7, train={"local_epochs": epochs})
    assert found.events == (SampledSteps(rate, 1.0, steps),)
    assert priced == [(EPSILON, DELTA, rate, 7 * steps)]


@pytest.mark.parametrize(
    ("privacy", "sections"),
    [(PRIVATE, {}), (EXAMPLE, {"metrics": NOISED, "client": VALIDATED}), (DP_SGD, {})],
    ids=["client", "example with a metric", "dp-sgd"],
)
def test_a_budget_of_the_very_epsilon_that_was_agreed_pays_for_every_round(
    privacy: dict[str, Any], sections: dict[str, Any]
):
    agreed = settings(privacy, **sections)
    own, found, state = client_settings("birch", agreed), make_plan(agreed, "birch"), Bucket(Clock())
    own = own.model_copy(update={"budget": own.budget.model_copy(update={"epsilon": EPSILON})})
    Ledger(state, "data").open(agreed.privacy.unit, agreed.privacy.adjacency, bytes(32))
    for round_ in range(3):
        account = Account(own, state, agreed, round_, found)
        account.check(Bucket(Clock()))
        account.charge()
    assert 0.97 * EPSILON < account.spent()["epsilon_federation"] <= EPSILON


def test_without_privacy_there_is_nothing_to_plan():
    assert make_plan(federation_settings(), "birch") is None


@pytest.mark.parametrize("privacy", [PRIVATE, EXAMPLE])
def test_for_a_client_that_is_not_on_the_roster_there_is_no_plan(privacy: dict[str, Any]):
    with pytest.raises(SettingsError, match="client: expected one of birch, got 'nobody'"):
        make_plan(settings(privacy), "nobody")


# How far neighbours are apart.


@pytest.mark.parametrize(
    ("privacy", "train", "sensitivity"),
    [
        (PRIVATE | {"clip_norm": 0.3}, {}, 2 * 0.3),
        (PRIVATE | {"clip_norm": 0.3}, {"local_epochs": 7, "batch_size": 3, "momentum": 0.9}, 2 * 0.3),
        (EXAMPLE | {"clip_norm": 0.3}, {}, 0.1 * 0.3 / 50),
        (EXAMPLE | {"clip_norm": 0.3, "adjacency": "replace-one"}, {}, 2 * 0.1 * 0.3 / 50),
        (EXAMPLE, {"local_epochs": 4, "learning_rate": 1.5}, 4 * 1.5 * 2 / 50 * (1 + 2**-10)),
        (
            EXAMPLE | {"adjacency": "replace-one"},
            {"local_epochs": 4, "learning_rate": 1.5},
            2 * 4 * 1.5 * 2 / 50 * (1 + 2**-10),
        ),
    ],
    ids=["client", "client, long training", "example", "replaced", "several steps", "several steps, replaced"],
)
def test_the_sensitivity_is_that_of_the_design(privacy: dict[str, Any], train: dict[str, Any], sensitivity: float):
    found = plan_of(privacy, train=train)
    assert isinstance(found, OuPlan)
    assert found.sensitivity == pytest.approx(sensitivity, rel=1e-12)
    _, statement = found.release({"w": np.zeros(1000)}, np.zeros)
    assert sensitivity < statement["sensitivity"] < sensitivity * (1 + 1e-6)  # and what rounding adds


def test_the_declared_number_of_each_client_counts():
    agreed = federation_settings(privacy=EXAMPLE)  # alder has 100, birch 50, cedar 7
    sensitivities = [make_plan(agreed, client).sensitivity for client in agreed.roster]
    assert sensitivities == pytest.approx([0.1 / 100, 0.1 / 50, 0.1 / 7])


@pytest.mark.parametrize("learning_rate", [2.0001, 40.0])
def test_steps_too_long_for_the_convex_bound_are_refused_by_name(learning_rate: float):
    plan_of(EXAMPLE, train={"local_epochs": 2, "learning_rate": 2.0})
    with pytest.raises(PrivacyError, match=r"settings of orchard .*learning_rate: expected at most .* = 2, got"):
        plan_of(EXAMPLE, train={"local_epochs": 2, "learning_rate": learning_rate})
    plan_of(
        EXAMPLE, train={"local_epochs": 1, "learning_rate": learning_rate}
    )  # one step is clipped example by example


# Several full-batch steps: where the loss is known to be convex, and nowhere else.


class Shaped(nn.Linear):
    """A layer of somebody else, which may compute anything."""


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the old weight_norm says that it is old
@pytest.mark.parametrize(
    "model",
    [
        lambda: nn.Sequential(nn.Linear(2, 3)),
        lambda: nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)),
        lambda: nn.Conv1d(2, 3, 1),
        lambda: nn.Bilinear(2, 2, 3),
        lambda: Shaped(2, 3),
        lambda: parametrizations.weight_norm(nn.Linear(2, 3)),
        lambda: nn.utils.weight_norm(nn.Linear(2, 3)),
        lambda: nn.utils.spectral_norm(nn.Linear(2, 3)),
    ],
    ids=["sequential", "hidden", "conv", "bilinear", "subclass", "weight_norm", "old weight_norm", "spectral_norm"],
)
def test_anything_that_is_not_known_to_be_convex_is_refused(model: Any):
    with pytest.raises(
        UnsupportedModel, match=r'known here for one torch.nn.Linear .* local_epochs = 1, or .*"dp-sgd"'
    ):
        refuse_unknown_convexity(model(), own_loss=False)


def test_a_linear_layer_is_known_to_be_convex_under_the_default_loss_only():
    refuse_unknown_convexity(nn.Linear(2, 3), own_loss=False)
    refuse_unknown_convexity(nn.Linear(2, 3, bias=False), own_loss=False)
    with pytest.raises(UnsupportedModel, match="under cross entropy only"):
        refuse_unknown_convexity(nn.Linear(2, 3), own_loss=True)


Rows = tuple[torch.Tensor, torch.Tensor]
DECLARED, RATE, STEPS = 6, 2.0, 12  # the longest step that is allowed


def start(seed: int = 0, bias: bool = True, scale: float = 1.0) -> nn.Linear:
    torch.manual_seed(seed)
    model = nn.Linear(4, 3, bias)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def moved(rows: Rows, model: nn.Linear | None = None, steps: int = STEPS) -> np.ndarray[Any, Any]:
    difference = full_batch_steps(model or start(), *rows, learning_rate=RATE, steps=steps, declared=DECLARED)
    return np.concatenate([tensor.ravel() for tensor in difference.values()])


def some_rows(generator: np.random.Generator, count: int = DECLARED) -> Rows:
    scale = generator.choice([0.1, 1.0, 100.0], (count, 1))
    inputs = torch.tensor(scale * generator.standard_normal((count, 4)), dtype=torch.float32)
    return inputs, torch.tensor(generator.integers(3, size=count))


def removed(rows: Rows) -> Rows:
    return rows[0][1:], rows[1][1:]


def replaced(rows: Rows, by: Rows) -> Rows:
    return torch.cat([by[0][:1], rows[0][1:]]), torch.cat([by[1][:1], rows[1][1:]])


def test_neighbours_end_no_further_apart_than_the_sensitivity(generator: np.random.Generator):
    bounds = {
        adjacency: plan_of(
            EXAMPLE | {"adjacency": adjacency},
            train={"learning_rate": RATE, "local_epochs": STEPS},
            client=[{"id": "birch", "examples": DECLARED}],
        ).sensitivity
        for adjacency in ("add-or-remove", "replace-one")
    }
    for seed in range(40):
        model = {"seed": seed, "bias": seed % 4 > 0, "scale": (1.0, 20.0)[seed % 2]}
        rows, other = some_rows(generator), some_rows(generator)
        here = moved(rows, start(**model))
        assert np.linalg.norm(here - moved(removed(rows), start(**model))) <= bounds["add-or-remove"]
        assert np.linalg.norm(here - moved(replaced(rows, other), start(**model))) <= bounds["replace-one"]


def test_the_bound_of_one_step_is_reached():
    """A row of length 1 that the model is sure about, wrongly: ‖p − y‖ = √2 and ‖(x, 1)‖ = √2."""
    model = start(scale=0.0)
    with torch.no_grad():
        model.weight[0, 0] = 100.0
    rows = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([1])
    assert np.linalg.norm(moved(rows, model, steps=1)) == pytest.approx(RATE * 2.0 / DECLARED, rel=1e-12)


def test_what_large_weights_round_off_is_less_than_what_one_example_moves():
    inputs, classes = torch.ones(6, 64), torch.arange(6)
    torch.manual_seed(0)
    model = nn.Linear(64, 10)
    with torch.no_grad():
        model.weight *= 1000.0
    here, there = (
        full_batch_steps(model, inputs[first:], classes[first:], learning_rate=RATE, steps=STEPS, declared=10**5)
        for first in (0, 1)
    )
    distance = math.sqrt(sum(float(np.sum((here[name] - there[name]) ** 2)) for name in here))
    assert 0.5 < distance / (STEPS * RATE * 2.0 / 10**5) <= 1 + 1e-9


@pytest.mark.parametrize("row", [[1.0, 0.0], [0.7, 0.7]], ids=["finite", "beyond float64"])
def test_weights_with_which_one_row_could_make_the_difference_infinite_are_refused_whatever_the_rows(row: list[float]):
    model = nn.Linear(2, 3, dtype=torch.float64)
    with torch.no_grad():
        model.weight[0] = 1.7e308
    rows = (torch.tensor([row], dtype=torch.float64), torch.zeros(1, dtype=torch.long))
    with pytest.raises(InvalidTensorFile, match=r"weights above .* float64 rounds off"):
        full_batch_steps(model, *rows, learning_rate=RATE, steps=STEPS, declared=DECLARED)


@pytest.mark.parametrize("declared", [6, 1000])
def test_weights_beside_which_a_row_is_rounded_off_are_refused_and_below_them_it_moves_what_it_may(declared: int):
    """Near 2⁵² float64 knows whole numbers only: a row more or less can turn a step of 1 into none."""
    inputs, classes = torch.ones(declared, 1), torch.ones(declared, dtype=torch.long)
    bound = 2 * 1.0 * 2.0 / declared * (1 + 2**-10)
    moves, refused = [], []
    for exponent in range(53):
        model = nn.Linear(1, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            model.weight.fill_(1.5 * 2.0**exponent)
        try:
            here, there = (
                full_batch_steps(model, inputs[n:], classes[n:], learning_rate=1.0, steps=2, declared=declared)
                for n in (0, 1)
            )
            moves.append(np.linalg.norm(here["weight"] - there["weight"]))
        except InvalidTensorFile:
            refused.append(exponent)
    assert max(moves) <= bound
    assert refused == list(range(len(moves), 53))
    assert 25 < len(moves) < 45


def test_rows_longer_than_one_are_scaled_and_shorter_ones_are_left_alone(generator: np.random.Generator):
    inputs, classes = some_rows(generator)
    lengths = inputs.norm(dim=1, keepdim=True)
    assert (lengths > 1).any()
    assert (lengths < 1).any()
    scaled = torch.where(lengths > 1, inputs / lengths, inputs)
    assert moved((inputs, classes)) == pytest.approx(moved((scaled, classes)), abs=1e-6)
    assert moved((inputs, classes)) != pytest.approx(moved((inputs / lengths, classes)), abs=1e-3)


def test_steps_are_plain_gradient_descent_over_the_declared_number(generator: np.random.Generator):
    inputs, classes = some_rows(generator, 4)
    inputs /= inputs.norm(dim=1, keepdim=True)
    weights = np.concatenate([parameter.detach().double().numpy().ravel() for parameter in start().parameters()])
    weight, bias = weights[:12].reshape(3, 4), weights[12:]
    first = weights.copy()
    x, y = inputs.double().numpy(), np.eye(3)[classes.numpy()]
    for _ in range(STEPS):
        scores = x @ weight.T + bias
        share = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True) - y
        weight, bias = weight - RATE / DECLARED * share.T @ x, bias - RATE / DECLARED * share.sum(axis=0)
    assert moved((inputs, classes)) == pytest.approx(np.concatenate([weight.ravel(), bias]) - first, abs=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_that_is_not_finite_counts_as_zeros(generator: np.random.Generator, value: float):
    inputs, classes = some_rows(generator)
    inputs[0] = 0.0
    without = moved((inputs, classes))
    inputs[0, 2] = value
    assert (moved((inputs, classes)) == without).all()


def test_one_row_cannot_move_the_weight_of_all_others_by_having_a_class():
    """Cross entropy passes over targets of −100 and, in a mean, divides by the rest: one row could count for all."""
    inputs = torch.eye(4).repeat(250, 1)
    nobody = torch.full((1000,), -100)
    somebody = nobody.clone()
    somebody[0] = 1
    one, other = (
        np.concatenate([tensor.ravel() for tensor in full_batch_steps(start(), inputs, classes, **steps).values()])
        for classes in (nobody, somebody)
        for steps in [{"learning_rate": RATE, "steps": STEPS, "declared": 1000}]
    )
    assert 0 < np.linalg.norm(one - other) <= STEPS * RATE * 2 / 1000


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        (torch.ones(5, 4), torch.full((5, 3), 1e4)),  # weights of classes: a gradient as large as they are
        (torch.ones(5, 4), torch.ones(5)),
        (torch.ones(5, 7, 4), torch.ones(5, 3).long()),
        (torch.ones(5, 4), torch.ones(5, 3).long()),
        (torch.ones(4), torch.tensor(1)),
    ],
    ids=["class probabilities", "numbers", "sequences", "several classes", "one example"],
)
def test_targets_whose_gradients_have_no_bound_are_refused(inputs: torch.Tensor, targets: torch.Tensor):
    with pytest.raises(UnsupportedModel, match="one row of numbers and one class an example"):
        moved((inputs, targets))


# Settings that contradict each other.


@pytest.mark.parametrize(
    ("privacy", "sections", "problem"),
    [
        (EXAMPLE, {"train": {"batch_size": 8}}, 'train: unit "example" of this mechanism takes full-batch steps'),
        (EXAMPLE, {"train": {"momentum": 0.5}}, 'train: unit "example" of this mechanism takes full-batch steps'),
        (EXAMPLE, {"train": {"gradient_clip": 1.0}}, 'train: unit "example" of this mechanism takes full-batch steps'),
        (EXAMPLE, {"train": {"proximal_mu": 0.1}}, 'train: unit "example" of this mechanism takes full-batch steps'),
        (EXAMPLE, {"train": {"optimizer": "adam"}}, 'train: unit "example" of this mechanism takes full-batch steps'),
        (DP_SGD, {"train": {"batch_size": 8}}, "privacy.sampling_probability sets the batch"),
        (DP_SGD, {"train": {"gradient_clip": 1.0}}, "privacy.clip_norm clips"),
        (PRIVATE | {"adjacency": "add-or-remove"}, {}, 'privacy.adjacency: unit "client" .* expected "replace-one"'),
        (DP_SGD | {"unit": "client"}, {}, "privacy.unit: expected 'example', got"),
        (DP_SGD | {"adjacency": "replace-one"}, {}, "privacy.adjacency: expected 'add-or-remove', got"),
        (DP_SGD | {"sampling_probability": 0.0}, {}, "sampling_probability: .* greater than 0"),
        (EXAMPLE | {"theta": -1.0}, {}, "theta: .*greater than or equal to 0"),
        (EXAMPLE | {"time": 0.0}, {}, "time: .*greater than 0"),
        (EXAMPLE | {"debias": "some"}, {}, "debias: "),
        (EXAMPLE | {"noise_multiplier": 0.1}, {}, "privacy.noise_multiplier: no such field"),
        (EXAMPLE | {"seed": 1}, {}, "privacy.seed: no such field"),  # nothing seeds the noise
        ({"mechanism": "none"}, {"metrics": NOISED, "client": VALIDATED}, 'metrics.share: "noised" goes with'),
        (PRIVATE, {"metrics": NOISED, "client": VALIDATED}, 'metrics.share: "noised" goes with .* unit "example" only'),
        (DP_SGD, {"metrics": NOISED, "client": VALIDATED}, 'metrics.share: "noised" goes with .*"ornstein-uhlenbeck"'),
        (EXAMPLE, {"metrics": NOISED}, r"metrics.share: .* validation_examples .* missing for \['birch'\]"),
        (EXAMPLE, {"metrics": {"share": "noised"}, "client": VALIDATED}, "metrics.noise_multiplier: .* needs it"),
        (EXAMPLE, {"metrics": {"share": "open", "noise_multiplier": 9.0}}, 'belongs to share = "noised"'),
        (EXAMPLE, {"metrics": {"noise_multiplier": 9.0}}, 'belongs to share = "noised"'),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(
    privacy: dict[str, Any], sections: dict[str, Any], problem: str
):
    with pytest.raises(SettingsError, match=problem):
        settings(privacy, **sections)


def test_the_adjacency_is_that_of_the_unit_unless_it_is_written():
    assert settings(EXAMPLE).privacy.adjacency == "add-or-remove"
    assert settings(EXAMPLE | {"adjacency": "replace-one"}).privacy.adjacency == "replace-one"
    assert settings(PRIVATE).privacy.adjacency == "replace-one"
    assert settings(DP_SGD).privacy.adjacency == "add-or-remove"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"theta": 3e3, "time": 1.0}, "theta and time"),
        ({"epsilon": 1e-3, "clip_norm": 1e300}, "noise"),
        ({"epsilon": 1e-4}, "epsilon: expected a number from 0.001 to 1e"),
        ({"epsilon": 1e21}, "epsilon: expected a number from 0.001 to 1e"),
    ],
)
def test_numbers_for_which_there_is_no_mechanism_are_refused_before_there_is_a_plan(
    changes: dict[str, Any], named: str
):
    with pytest.raises(PrivacyError, match=f"settings of orchard cannot be kept: {named}"):
        plan_of(PRIVATE | changes)


def test_noise_on_a_metric_that_cannot_be_drawn_is_refused_before_there_is_a_plan():
    with pytest.raises(PrivacyError, match="settings of orchard cannot be kept: noise_sd"):
        plan_of(EXAMPLE, metrics={"share": "noised", "noise_multiplier": 1e300}, client=VALIDATED)
