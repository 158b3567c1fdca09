"""One round at a client with a real task: what it makes of a global model, and from which examples."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from aggregator.rounds import start
from client import rounds as client_rounds
from client.data import data_source
from client.learn import LocalTraining, initial_model
from client.privacy.plan import make_plan
from client.update import Learned
from exchange import tensors
from exchange.errors import TaskError, UnsupportedModel
from exchange.spec import FederationSettings
from tests.support.federation import Federation
from tests.support.settings import PRIVATE, client_settings, federation_settings
from tests.support.tasks import task, write_data, write_task

EXAMPLES = 50  # of birch, by the settings


def no_noise(count: int) -> Any:
    raise AssertionError(f"{count} draws of noise in a training without privacy")


def learning(folder: Path, settings: FederationSettings, client: str = "birch") -> LocalTraining:
    own = client_settings(client, settings).model_copy(update={"data": "own.npz"})
    return LocalTraining(own, folder, no_noise, no_noise)


def learned(
    folder: Path, settings: FederationSettings, client: str = "birch", round_: int = 0, model: bytes | None = None
) -> Learned:
    agreement = client_settings(client, settings).agreement[0]
    first = initial_model(task(folder), settings) if model is None else model
    return learning(folder, settings, client)(agreement, settings, round_, first, None)


def batches(**train: Any) -> FederationSettings:
    return federation_settings(train={"learning_rate": 0.1, "batch_size": 4} | train)


def same(first: Learned, second: Learned) -> bool:
    return all(np.array_equal(first.difference[name], second.difference[name]) for name in first.difference)


def test_the_first_model_is_that_of_the_seed(tmp_path: Path):
    loaded = task(tmp_path)
    first = initial_model(loaded, federation_settings())
    torch.manual_seed(3)
    assert initial_model(loaded, federation_settings()) == first
    assert tensors.layout_of(first).metadata == {"federation": "orchard", "round": "0"}
    other = federation_settings(train={"seed": 1})
    assert (
        safetensors.torch.load(initial_model(loaded, other))["weight"].ne(safetensors.torch.load(first)["weight"]).all()
    )


def test_the_difference_is_what_a_step_on_the_declared_examples_makes(tmp_path: Path):
    write_task(tmp_path)
    write_data(tmp_path / "own.npz", examples=EXAMPLES + 20)
    settings = federation_settings()
    module = task(tmp_path).model(0)
    module.load_state_dict(safetensors.torch.load(initial_model(task(tmp_path), settings)))
    with np.load(tmp_path / "own.npz") as arrays:
        inputs = torch.from_numpy(arrays["train_inputs"][:EXAMPLES])
        targets = torch.from_numpy(arrays["train_targets"][:EXAMPLES])
    torch.nn.functional.cross_entropy(module(inputs), targets).backward()
    found = learned(tmp_path, settings).difference
    assert found.keys() == {"weight", "bias"}
    for name, parameter in module.named_parameters():
        assert found[name].dtype == np.float64
        assert found[name] == pytest.approx(-0.1 * parameter.grad.numpy(), abs=1e-6)


def test_examples_beyond_those_declared_change_nothing(tmp_path: Path):
    write_data(tmp_path / "own.npz", examples=EXAMPLES)
    declared = learned(tmp_path, batches())
    with np.load(tmp_path / "own.npz") as arrays:
        more = {name: np.concatenate([array, array[:7]]) for name, array in arrays.items()}
    np.savez(tmp_path / "own.npz", **more)
    assert same(learned(tmp_path, batches()), declared)


def test_a_client_with_fewer_examples_than_declared_uses_what_it_has(tmp_path: Path):
    write_data(tmp_path / "own.npz", examples=9)
    assert np.abs(learned(tmp_path, batches()).difference["weight"]).min() > 0


def test_training_is_a_function_of_model_data_client_round_and_seed(tmp_path: Path):
    write_data(tmp_path / "own.npz", examples=20)
    first = learned(tmp_path, batches())
    torch.rand(3)
    assert same(learned(tmp_path, batches()), first)
    assert not same(learned(tmp_path, batches(), round_=1), first)
    assert not same(learned(tmp_path, batches(), client="alder"), first)
    assert not same(learned(tmp_path, batches(local_epochs=2)), first)
    other = initial_model(task(tmp_path), federation_settings(train={"seed": 1}))
    assert not same(learned(tmp_path, batches(), model=other), first)


def test_metrics_are_those_of_the_global_model_on_the_validation_split(tmp_path: Path):
    write_task(tmp_path)
    write_data(tmp_path / "own.npz", examples=20, validation=15)
    settings = federation_settings(metrics={"share": "open"})
    module = task(tmp_path).model(0)
    module.load_state_dict(safetensors.torch.load(initial_model(task(tmp_path), settings)))
    with np.load(tmp_path / "own.npz") as arrays:
        output = module(torch.from_numpy(arrays["validation_inputs"])).detach().numpy()
        accuracy = np.mean(output.argmax(axis=1) == arrays["validation_targets"])
    assert learned(tmp_path, settings).metrics == {"accuracy": pytest.approx(accuracy)}


def test_what_nobody_agreed_to_share_is_not_even_looked_at(tmp_path: Path):
    write_data(tmp_path / "own.npz")
    shy = """
        whole = data

        def data(source, split):
            assert split == "train"
            return whole(source, split)
        """
    first = initial_model(task(tmp_path, shy), federation_settings())
    agreement = client_settings("birch", federation_settings()).agreement[0]
    found = learning(tmp_path, federation_settings())(agreement, federation_settings(), 0, first, None)
    assert (found.metrics, found.correct) == ({}, None)


def test_without_a_validation_split_nothing_is_shared(tmp_path: Path):
    write_data(tmp_path / "own.npz", validation=0)
    assert learned(tmp_path, federation_settings(metrics={"share": "open"})).metrics == {}


@pytest.mark.parametrize(
    ("gave", "named"),
    [("{'m' * 101: 0.5}", "{'m{101}': 0.5}"), ("{f'at {k}': 0.5 for k in range(33)}", "33")],
    ids=["a long name", "too many"],
)
def test_more_metrics_than_the_parent_takes_are_told_before_anything_is_charged(tmp_path: Path, gave: str, named: str):
    write_data(tmp_path / "own.npz")
    settings = federation_settings(metrics={"share": "open"})
    first = initial_model(task(tmp_path, f"def metrics(output, target): return {gave}"), settings)
    with pytest.raises(TaskError, match=rf"metrics\(\) gave {named}, expected .* at most 32, by names of at most 100"):
        learning(tmp_path, settings)(client_settings("birch", settings).agreement[0], settings, 0, first, None)


@pytest.mark.parametrize("value", ["nan", "inf", "-1e+100"])
def test_a_shared_metric_that_the_parent_would_reject_is_told_before_anything_is_charged(tmp_path: Path, value: str):
    write_data(tmp_path / "own.npz")
    unfit = f"def metrics(output, target): return {{'accuracy': 0.5, 'auc': float('{value}')}}"
    settings = federation_settings(metrics={"share": "open"})
    first = initial_model(task(tmp_path, unfit), settings)
    with pytest.raises(TaskError, match=rf"task\.py: metrics\(\) gave {{'auc': {re.escape(value)}}}, expected numb"):
        learning(tmp_path, settings)(client_settings("birch", settings).agreement[0], settings, 0, first, None)


def test_metrics_without_the_one_that_the_federation_stops_by_are_told(tmp_path: Path):
    write_data(tmp_path / "own.npz")
    settings = federation_settings(metrics={"share": "open"}, stop={"patience": 2})
    first = initial_model(task(tmp_path, "def metrics(output, target): return {'mse': 0.5}"), settings)
    with pytest.raises(TaskError, match=r"metrics\(\) gave \['mse'\]; expected 'accuracy' among them"):
        learning(tmp_path, settings)(client_settings("birch", settings).agreement[0], settings, 0, first, None)


def test_a_training_that_diverges_says_what_may_help(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_data(tmp_path / "own.npz")
    learned(tmp_path, batches())
    assert not caplog.messages
    settings = batches(learning_rate=1e38, local_epochs=2, proximal_mu=10.0)
    assert not np.isfinite(learned(tmp_path, settings).difference["weight"]).all()
    assert any("a smaller train.learning_rate" in message for message in caplog.messages)


FROZEN = """
def model():
    module = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 3))
    module[0].requires_grad_(False)
    return module
"""


@pytest.mark.parametrize("unit", ["client", "example"])
def test_weights_that_training_leaves_alone_get_no_noise(tmp_path: Path, unit: str):
    write_data(tmp_path / "own.npz")
    settings = federation_settings(privacy=PRIVATE | {"unit": unit})
    first = initial_model(task(tmp_path, FROZEN), settings)
    agreement = client_settings("birch", settings).agreement[0]
    own = client_settings("birch", settings).model_copy(update={"data": "own.npz"})
    training = LocalTraining(own, tmp_path, no_noise, np.random.default_rng(0).random)
    found = training(agreement, settings, 0, first, make_plan(settings, "birch"))
    assert found.difference.keys() == {"1.weight", "1.bias"}


@pytest.mark.parametrize(
    ("model", "train", "said"),
    [
        ("torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))", {}, "layer '1'.*GroupNorm"),
        ("torch.nn.Sequential(torch.nn.Linear(2, 3))", {"local_epochs": 2}, "take local_epochs = 1"),
    ],
)
def test_a_model_that_no_client_would_train_begins_no_federation(
    tmp_path: Path, model: str, train: dict[str, Any], said: str
):
    loaded = task(tmp_path, f"def model(): return {model}")
    initial_model(loaded, federation_settings(train=train))
    with pytest.raises(UnsupportedModel, match=said):
        initial_model(loaded, federation_settings(train=train, privacy=PRIVATE | {"unit": "example"}))


@pytest.mark.parametrize(
    "data", ["return None", "return TensorDataset(torch.zeros(0, 2), torch.zeros(0))"], ids=["none", "empty"]
)
def test_without_training_data_there_is_nothing_to_train_on(tmp_path: Path, data: str):
    without = f"def data(source, split):\n    {data}"
    first = initial_model(task(tmp_path, without), federation_settings())
    agreement = client_settings("birch", federation_settings()).agreement[0]
    with pytest.raises(TaskError, match=r"task\.py: data\('own\.npz', 'train'\) gave no examples"):
        learning(tmp_path, federation_settings())(agreement, federation_settings(), 0, first, None)


def test_a_model_that_changed_since_the_federation_began_is_refused_by_name(tmp_path: Path):
    write_data(tmp_path / "own.npz")
    first = initial_model(task(tmp_path), federation_settings())
    write_task(tmp_path, "def model(): return torch.nn.Linear(2, 4)")
    agreement = client_settings("birch", federation_settings()).agreement[0]
    with pytest.raises(TaskError, match=r"weight: expected \(3, 2\), model\(\) has \(4, 2\)\n.* begin another"):
        learning(tmp_path, federation_settings())(agreement, federation_settings(), 0, first, None)


def test_data_may_be_a_text_that_is_too_long_for_a_path(tmp_path: Path):
    text = f"select {'x' * 300} from records"
    assert data_source(tmp_path, text, None) == text


def test_data_is_a_path_where_there_is_one_and_any_text_where_there_is_none(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    assert data_source(tmp_path, "folder", None) == str((tmp_path / "folder").resolve())
    assert data_source(tmp_path, "postgresql://host/rows", tmp_path) == "postgresql://host/rows"


def test_a_whole_run_with_a_real_task_learns(tmp_path: Path):
    settings = federation_settings(
        rounds=5, train={"learning_rate": 3.0, "local_epochs": 10}, metrics={"share": "open"}, quorum=3
    )
    federation = Federation(settings)
    for seed, client in enumerate(settings.roster):
        (tmp_path / client).mkdir()
        write_task(tmp_path / client)
        write_data(tmp_path / client / "own.npz", examples=60, validation=40, seed=seed)
        federation.learners[client] = learning(tmp_path / client, settings, client)
    start(federation.parent_bucket, settings, initial_model(task(tmp_path), settings))
    federation.run(duplicates=True)
    accuracies = [federation.summary(round_).metrics["accuracy"] for round_ in range(5)]
    assert accuracies[-1] > 0.85 > accuracies[0]
    federation.assert_sound()


def test_a_task_that_fails_uploads_nothing_and_is_tried_again_once_it_is_mended(tmp_path: Path):
    write_data(tmp_path / "own.npz")
    settings = federation_settings()
    federation = Federation(settings)
    start(federation.parent_bucket, settings, initial_model(task(tmp_path), settings))
    write_task(tmp_path, "def loss(output, target): raise ValueError('broken')")
    federation.learners["birch"] = learning(tmp_path, settings)
    with pytest.raises(TaskError, match="ValueError: broken"):
        client_rounds.train(federation.client("birch"), "orchard", 0)
    assert federation.uploads() == {}
    write_task(tmp_path)
    federation.learners["birch"] = learning(tmp_path, settings)  # a function that was deployed anew
    client_rounds.train(federation.client("birch"), "orchard", 0)
    assert federation.uploads().keys() == {"orchard/updates/birch/000000.safetensors"}
    federation.assert_sound()


PRIVATE_TO_ONE = federation_settings(
    privacy={"mechanism": "ornstein-uhlenbeck", "unit": "example", "epsilon": 8.0, "delta": 1e-5, "clip_norm": 1.0},
    metrics={"share": "open"},
)


def learned_privately(folder: Path, *more: str, secret: float = 0.0) -> Learned:
    """Return what comes of one step that is to be private to an example, with a secret of the client's machine."""
    write_task(folder, *more)
    own = client_settings("birch", PRIVATE_TO_ONE).model_copy(update={"data": "own.npz"})
    training = LocalTraining(own, folder, no_noise, lambda count: np.full(count, secret))
    first = initial_model(task(folder, *more), PRIVATE_TO_ONE)
    return training(own.agreement[0], PRIVATE_TO_ONE, 0, first, make_plan(PRIVATE_TO_ONE, "birch"))


DROPOUT = """
def model():
    return torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 3))
"""
AUGMENTED = """
class Shaken(torch.utils.data.Dataset):
    def __init__(self, inner):
        self.inner = inner
    def __len__(self):
        return len(self.inner)
    def __getitem__(self, index):
        inputs, target = self.inner[index]
        return inputs + torch.rand(2), target

whole = data
def data(source, split):
    return Shaken(whole(source, split))
"""


@pytest.mark.parametrize("more", [DROPOUT, AUGMENTED], ids=["dropout", "augmentation"])
def test_what_chance_does_to_a_row_is_drawn_from_a_secret_and_not_from_a_seed_that_others_know(
    tmp_path: Path, more: str
):
    """By a known seed it would hang on the row's place, and one row less would change it for all rows after."""
    write_data(tmp_path / "own.npz", examples=20)
    first = learned_privately(tmp_path, more, secret=0.25)
    assert same(learned_privately(tmp_path, more, secret=0.25), first)
    assert not same(learned_privately(tmp_path, more, secret=0.75), first)


def test_training_knows_nothing_of_what_the_model_kept_of_the_validation_rows(tmp_path: Path):
    first_seen = """
    class FirstSeen(torch.nn.Linear):
        seen = None
        def forward(self, x):
            if self.seen is None:
                self.seen = x.detach().mean(dim=0)
            return super().forward(x - self.seen)

    def model():
        return FirstSeen(2, 3)
    """
    write_data(tmp_path / "own.npz", examples=20, validation=5)
    first = learned_privately(tmp_path, first_seen)
    with np.load(tmp_path / "own.npz") as arrays:
        np.savez(tmp_path / "own.npz", **dict(arrays) | {"validation_inputs": arrays["validation_inputs"] + 9})
    assert same(learned_privately(tmp_path, first_seen), first)
