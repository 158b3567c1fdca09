"""An update under privacy: it carries the noise that was paid for, and what it says of that is true."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest, norm

from aggregator import rounds as parent_rounds
from client.privacy.ledger import Ledger
from client.privacy.plan import make_plan, refuse_impossible_release
from client.update import Learned
from exchange import keys, tensors
from exchange.errors import PrivacyError, TaskError
from fedbucket.starting import noise_of
from tests.support.arithmetic import FIRST, Arrays, file_of, model_file
from tests.support.buckets import Bucket
from tests.support.private import (
    DELTA,
    EPSILON,
    MECHANISMS,
    PAIR,
    Private,
    agreed,
    gaussian_epsilon,
    oracle_epsilon,
    outcome,
    real,
    with_history,
)
from tests.support.settings import federation_settings

every_mechanism = pytest.mark.parametrize("mechanism", MECHANISMS)

# The noise. 30 rounds at ε = 8 and δ = 1e-5 take z = 3.2876, and θ = 1, t = 0.25 leave a = 0.7788 (the design's own
# worked example); a client's difference is clipped to 1, so that Δ = 2; an example moves it by ηC/n = 0.1·1/100.

Z, A = 3.2876, 0.7788
SIDE = 200
WIDE: Arrays = {"weight": np.zeros((SIDE, SIDE), np.float32), "steps": np.array(12, np.int64)}
DIMENSION = SIDE * SIDE
BOUNDS = {"client": 1.0, "example": 0.1}  # the public bound on a difference: the clip norm, ηC
SENSITIVITIES = {"client": 2.0, "example": 0.1 / 100}


def pulled_back(unit: str) -> float:
    """Return a* = 1/(1 + d z²Δ²/(K R²)) for two clients."""
    return 1 / (1 + DIMENSION * (Z * SENSITIVITIES[unit]) ** 2 / (2 * BOUNDS[unit] ** 2))


SCALES: dict[str, Callable[[str], float]] = {"exact": lambda unit: 1.0, "none": lambda unit: A, "optimal": pulled_back}


def wide(unit: str, learned: Mapping[str, Any], **privacy: Any) -> Private:
    """Return a federation over 40,000 weights, all 0, of which every client learns `learned`."""
    settings = federation_settings(PAIR, rounds=30, quorum=2, privacy=MECHANISMS[unit] | privacy)
    federation = Private(settings)
    parent_rounds.start(federation.parent_bucket, settings, model_file(settings, 0, WIDE))
    federation.learning(Learned({name: np.asarray(array, np.float64) for name, array in learned.items()}))
    return federation


def something(norm_: float) -> NDArray[np.float64]:
    direction = np.random.default_rng(8).standard_normal((SIDE, SIDE))
    return norm_ * direction / np.linalg.norm(direction)


@pytest.mark.parametrize("debias", SCALES)
@pytest.mark.parametrize("unit", BOUNDS)
def test_the_noise_on_an_update_is_gaussian_and_as_loud_as_was_paid_for(unit: str, debias: str):
    u = something(0.9 * BOUNDS[unit])
    federation = wide(unit, {"weight": u}, debias=debias)
    federation.train()
    noise = (federation.update()[0]["weight"].astype(np.float64) - SCALES[debias](unit) * u).ravel()
    sd = SCALES[debias](unit) * Z * SENSITIVITIES[unit]
    assert abs(np.sum(noise**2) / sd**2 - DIMENSION) < 5 * math.sqrt(2 * DIMENSION)
    assert abs(noise.mean()) < 5 * sd / SIDE
    assert kstest(noise / sd, norm.cdf).pvalue > 1e-3
    assert abs(noise @ u.ravel()) < 5 * sd * np.linalg.norm(u), "the noise knows nothing of what it is put on"


@pytest.mark.parametrize("debias", SCALES)
@pytest.mark.parametrize("unit", BOUNDS)
def test_without_its_noise_an_update_would_be_what_was_learned_scaled_and_clipped_where_a_client_is_protected(
    unit: str, debias: str
):
    u = something(40.0)
    federation = wide(unit, {"weight": u}, debias=debias)
    federation.change = lambda client: replace(client, normals=np.zeros, learn=lambda *_: Learned({"weight": u}))
    federation.train()
    clipped = u / 40.0 if unit == "client" else u  # an example's gradient was clipped before
    released = federation.update()[0]["weight"]
    assert released == pytest.approx(SCALES[debias](unit) * clipped, rel=1e-3, abs=1e-6)
    assert np.linalg.norm(released) == pytest.approx(SCALES[debias](unit) * np.linalg.norm(clipped), rel=2e-4)


IMPOSSIBLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "more noise than the lattice pays for": ({"epsilon": 1e-3, "delta": 1e-12}, {"rounds": 10_000}),
    "noise beyond float32": ({"clip_norm": 2e37}, {}),
    "too little noise": (
        {"epsilon": 1e12, "unit": "example"},
        {"rounds": 1, "client": [{"id": client, "examples": 10**5} for client in PAIR]},
    ),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_settings_under_which_nothing_can_be_released_are_refused_before_training_and_cost_nothing(case: str):
    privacy, sections = IMPOSSIBLE[case]
    settings = federation_settings(PAIR, quorum=2, privacy=MECHANISMS["client"] | privacy, **sections)
    federation = Private(settings)
    first = model_file(settings, 0, {"weight": np.zeros(10**6, np.float32)})
    parent_rounds.start(federation.parent_bucket, settings, first)
    for act in (federation.train, lambda: noise_of(settings, first)):
        with pytest.raises(PrivacyError, match="the settings of orchard cannot be kept"):
            act()
    assert federation.learners["alder"].calls == []
    assert federation.charges() == []
    assert federation.uploads() == {}


def test_steps_with_more_noise_than_the_lattice_pays_for_are_refused_before_training():
    plan = make_plan(federation_settings(PAIR, privacy=MECHANISMS["dp-sgd"]), "alder")
    loud = replace(plan, event=replace(plan.event, noise_multiplier=1e6))
    refuse_impossible_release(loud, {"weight": np.zeros(280_000, np.float32)})
    with pytest.raises(PrivacyError, match="noise_multiplier and dimension"):
        refuse_impossible_release(loud, {"weight": np.zeros(290_000, np.float32)})


def test_replacing_an_example_takes_noise_twice_as_loud():
    spread = {}
    for adjacency in ("add-or-remove", "replace-one"):
        federation = wide("example", {"weight": np.zeros((SIDE, SIDE))}, adjacency=adjacency)
        federation.states["alder"] = Bucket(federation.clock)
        Ledger(federation.states["alder"], "data").open("example", adjacency, bytes(32))
        federation.train()
        spread[adjacency] = federation.update()[0]["weight"].std()
    assert spread["replace-one"] / spread["add-or-remove"] == pytest.approx(2.0, rel=0.03)


def test_a_difference_that_is_not_finite_counts_as_nothing_and_only_the_clients_log_says_so(
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.WARNING, "client.privacy")
    u = something(1.0)
    u[3, 4] = math.nan
    federation = wide("client", {"weight": u})
    federation.change = lambda client: replace(client, normals=np.zeros, learn=lambda *_: Learned({"weight": u}))
    federation.train()
    assert not federation.update()[0]["weight"].any()
    assert "the difference is not finite: it counts as 0" in caplog.text
    assert "finite" not in json.dumps(federation.update()[1])


def test_no_two_clients_and_no_two_rounds_share_any_noise():
    federation = wide("example", {"weight": np.zeros((SIDE, SIDE))}).run_rounds(2)
    before = tensors.load(federation.models[1])["weight"]
    noises = [federation.update(client, 0)[0]["weight"].ravel() for client in PAIR]
    noises += [(federation.update(client, 1)[0]["weight"] - before).ravel() for client in PAIR]
    correlations = np.corrcoef(noises)
    np.fill_diagonal(correlations, 0.0)
    assert np.abs(correlations).max() < 5 / SIDE
    assert len(np.unique(np.concatenate(noises))) > 3.9 * DIMENSION


def test_the_noise_of_a_round_is_drawn_once_for_each_weight_that_travels():
    federation = Private(agreed("client")).opened()
    federation.train()
    assert sum(noise.size for _, noise in federation.drawn) == 9  # of FIRST, without its integer


def test_dp_sgd_puts_no_second_noise_on_what_is_private_already():
    federation = Private(agreed("dp-sgd")).opened()
    federation.learning(Learned({"layer.bias": np.array([1.0, 2.0, 3.0])}))
    federation.train()
    assert federation.drawn == []
    assert federation.update()[0]["layer.bias"] == pytest.approx(FIRST["layer.bias"] + [1.0, 2.0, 3.0])


@every_mechanism
def test_integer_tensors_stay_and_tensors_that_were_not_learned_are_uploaded_as_they_were(mechanism: str):
    federation = Private(agreed(mechanism)).opened()
    federation.learning(Learned({"layer.bias": np.array([0.1, 0.2, 0.3])}))
    federation.train()
    found = federation.update()[0]
    assert found.keys() == {"layer.bias", "layer.weight"}
    assert found["layer.weight"].tobytes() == FIRST["layer.weight"].tobytes()
    assert (found["layer.bias"] != FIRST["layer.bias"]).all()


FROZEN = """
def model():
    layer = torch.nn.Linear(2, 3)
    layer.bias.requires_grad_(False)
    return layer
"""


@pytest.mark.parametrize("mechanism", ["example", "dp-sgd", "client"])
def test_a_frozen_tensor_is_left_alone_by_training_and_by_the_noise(tmp_path: Path, mechanism: str):
    federation = real(tmp_path, agreed(mechanism), FROZEN)
    federation.train()
    model = tensors.load(federation.models[0])
    found = federation.update()[0]
    assert (found["weight"] != model["weight"]).all()
    assert found["bias"].tobytes() == model["bias"].tobytes()


TIED = """
class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 2, bias=False)
        self.second = torch.nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.last = torch.nn.Linear(2, 3)

    def forward(self, x):
        return self.last(self.second(torch.tanh(self.first(x))))

def model():
    return Tied()
"""


@pytest.mark.parametrize("mechanism", ["example", "dp-sgd"])
def test_a_tied_weight_is_noised_once_and_moves_under_all_of_its_names(tmp_path: Path, mechanism: str):
    federation = real(tmp_path, agreed(mechanism), TIED)
    federation.train()
    found, before = federation.update()[0], tensors.load(federation.models[0])
    assert (found["first.weight"] != before["first.weight"]).all()
    assert np.array_equal(found["second.weight"], found["first.weight"])


def test_a_model_that_keeps_statistics_of_its_examples_is_refused_before_anything_is_charged(tmp_path: Path):
    statistics = "def model(): return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))"
    for mechanism in MECHANISMS:
        (tmp_path / mechanism).mkdir()
        federation = real(tmp_path / mechanism, agreed(mechanism), statistics)
        with pytest.raises(TaskError, match=r"layer '1': .* got BatchNorm1d, .* replace it by GroupNorm"):
            federation.train()
        assert federation.charges() == []
        assert federation.uploads() == {}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_examples_of_another_form_are_the_tasks_own_failure_before_anything_is_charged(tmp_path: Path, mechanism: str):
    pairs = """
    train_data = data
    def data(source, split):
        return [((x, x), y) for x, y in train_data(source, split)]
    """
    federation = real(tmp_path, agreed(mechanism), pairs)
    with pytest.raises(TaskError, match=r"task\.py: data\(.*\) gave a first example of \(\(a tensor"):
        federation.train()
    assert federation.charges() == []


def test_several_steps_of_a_model_that_may_not_be_convex_are_refused_before_anything_is_charged(tmp_path: Path):
    deep = "def model(): return torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))"
    federation = real(tmp_path, agreed("example", train={"local_epochs": 3}), deep)
    with pytest.raises(TaskError, match=r"known here for one torch.nn.Linear under cross entropy only"):
        federation.train()
    assert federation.charges() == []
    assert federation.uploads() == {}


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_real_task_is_answered_under_every_mechanism(tmp_path: Path, epochs: int):
    for mechanism in MECHANISMS if epochs == 1 else ("example", "client"):
        (tmp_path / mechanism).mkdir()
        federation = real(tmp_path / mechanism, agreed(mechanism, rounds=1, train={"local_epochs": epochs}))
        federation.train()
        parent_rounds.record(federation.parent, keys.Update("orchard", "alder", 0))
        assert federation.receipt("alder", 0).outcome == "accepted"


# What an update says of itself.

MANIFEST = {
    "mechanism",
    "unit",
    "adjacency",
    "sensitivity",
    "clip_norm",
    "theta",
    "time",
    "sigma",
    "contraction",
    "noise_multiplier",
    "delta",
    "epsilon_round",
    "epsilon_federation",
}


@pytest.mark.parametrize("unit", BOUNDS)
@pytest.mark.parametrize(("theta", "time"), [(1.0, 0.25), (0.5, 2.0), (0.0, 3.0)])
def test_an_update_states_its_privacy_and_that_is_true(unit: str, theta: float, time: float):
    settings = federation_settings(
        PAIR, rounds=3, quorum=2, privacy=MECHANISMS[unit] | {"theta": theta, "time": time, "clip_norm": 0.5}
    )
    federation = Private(settings).run()
    for client, round_ in [(client, round_) for client in PAIR for round_ in range(3)]:
        said = federation.statement(client, round_)
        assert said.keys() == MANIFEST | {"debias"}
        assert (said["mechanism"], said["unit"]) == ("ornstein-uhlenbeck", unit)
        assert said["adjacency"] == {"client": "replace-one", "example": "add-or-remove"}[unit]
        assert (said["clip_norm"], said["delta"], said["debias"]) == (0.5, DELTA, "exact")
        sensitivity = 2 * 0.5 if unit == "client" else 0.1 * 0.5 / {"alder": 100, "birch": 50}[client]
        assert said["sensitivity"] == pytest.approx(sensitivity, rel=1e-6)
        assert (said["theta"], said["time"]) == (theta, time)
        assert said["contraction"] == pytest.approx(math.exp(-theta * time), rel=1e-12)
        z = said["noise_multiplier"]
        growth = math.expm1(2 * theta * time) / (2 * theta) if theta else time
        assert said["sigma"] == pytest.approx(z * said["sensitivity"] / math.sqrt(growth), rel=1e-12)
        assert said["epsilon_round"] == pytest.approx(gaussian_epsilon([z]), rel=1e-9)
        assert said["epsilon_federation"] == pytest.approx(gaussian_epsilon([z] * (round_ + 1)), rel=1e-9)
    assert said["epsilon_federation"] == pytest.approx(EPSILON, rel=1e-6)


def test_an_update_of_dp_sgd_states_its_steps_and_that_is_true():
    federation = Private(agreed("dp-sgd")).run()
    for round_ in range(2):
        said = federation.statement("birch", round_)
        assert said.keys() == MANIFEST - {"theta", "time", "sigma", "contraction"} | {"sampling_probability", "steps"}
        assert (said["mechanism"], said["unit"], said["adjacency"]) == ("dp-sgd", "example", "add-or-remove")
        assert (said["sensitivity"], said["clip_norm"], said["delta"]) == (1.0, 1.0, DELTA)
        steps = (said["sampling_probability"], said["noise_multiplier"], said["steps"])
        assert steps[::2] == (0.5, 2)
        assert said["epsilon_round"] == pytest.approx(oracle_epsilon([], [steps]), rel=1e-6)
        assert said["epsilon_federation"] == pytest.approx(oracle_epsilon([], [steps] * (round_ + 1)), rel=1e-3)
    assert 0.97 * EPSILON < said["epsilon_federation"] <= EPSILON


def test_what_an_update_says_is_of_its_federation_and_not_of_the_account():
    federation = with_history(Private(agreed("example"))).opened()
    federation.train()
    z = federation.statement()["noise_multiplier"]
    assert federation.statement()["epsilon_federation"] == pytest.approx(gaussian_epsilon([z]), rel=1e-9)


@every_mechanism
def test_an_update_whose_statement_is_not_what_was_agreed_is_rejected(mechanism: str):
    """The statement of a real update is accepted; changed in what was agreed on, or spoilt, it is not."""
    federation = Private(agreed(mechanism)).opened()
    federation.train()
    found, metadata = federation.update()
    sound = federation.statement()
    assert outcome(federation, "alder") == (None, "accepted")
    other = {
        "mechanism": "none",
        "unit": {"client": "example"}.get(mechanism, "client"),
        "adjacency": {"client": "add-or-remove"}.get(mechanism, "replace-one"),
        "clip_norm": 1.5,
    }
    texts = [json.dumps(sound | {name: value}) for name, value in other.items()]
    texts += [json.dumps({field: value for field, value in sound.items() if field != name}) for name in other]
    texts += ["", "{}", "[]", "null", '"noised"', json.dumps(sound)[:-1], json.dumps(sound | {"sigma": math.nan})]
    for text in [None, *texts]:
        again = Private(agreed(mechanism)).opened()
        own = {name: value for name, value in metadata.items() if name != "privacy"}
        own |= {"client": "birch"} | ({} if text is None else {"privacy": text})
        again.upload("birch", 0, file_of(found, own))
        assert outcome(again, "birch") == ("privacy", "rejected"), text
