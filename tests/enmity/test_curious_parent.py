"""What a parent can do that wants more from a client than was agreed: anything in its own bucket, and in a client's to
create and read under `inbox/`.

Each test is an attempt, with what comes of it; `docs/threat-model.md` has them in a table.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import rounds as client_rounds
from client.privacy.ledger import Ledger, events_of
from client.update import Learned
from exchange import keys, tensors
from exchange.documents import sha256
from exchange.errors import AlreadyExists, ConsentRefused, DifferentContent, FedbucketError, LedgerError
from exchange.events import ObjectCreated
from exchange.records import Ticket
from exchange.spec import FederationSettings
from exchange.stores import Store
from tests.support.arithmetic import FIRST, Arrays, model_file, update_file
from tests.support.buckets import Bucket, answers, contents
from tests.support.permitted import Forbidden, inbox_of_parent
from tests.support.private import EPSILON, MECHANISMS, PAIR, UPDATE, Private, agreed, gaussian_epsilon, real
from tests.support.settings import federation_settings

both_units = pytest.mark.parametrize("mechanism", ["client", "example"])
GENEROUS = 10 * EPSILON  # a budget that would bear more than was agreed
OTHER: Arrays = {name: array + array.dtype.type(1) for name, array in FIRST.items()}


def publish(federation: Private, round_: int, arrays: Arrays = FIRST) -> bytes:
    """Put a global model into the parent bucket, whatever is there."""
    model = model_file(federation.settings, round_, arrays)
    federation.parent_bucket.replace(str(keys.Model("orchard", round_)), model)
    return model


def inbox(federation: Private, client: str = "alder") -> Store:
    return inbox_of_parent(federation.inboxes[client])


def ticket(settings: FederationSettings, round_: int, content: bytes, /, **forged: object) -> bytes:
    """Return a ticket for the global model `content`; `forged` goes over what it says."""
    words: dict[str, object] = {
        "federation": "orchard",
        "round": round_,
        "model": str(keys.Model("orchard", round_)),
        "sha256": sha256(content),
        "settings_sha256": settings.sha256,
        "last": None,
    }
    return Ticket.model_validate(words | forged).to_bytes()


def delivered(federation: Private, key: str, data: bytes) -> None:
    """Put an object into alder's bucket and let it wake alder's function."""
    inbox(federation).create(key, data)
    client_rounds.handle(federation.client("alder"), ObjectCreated("alder", key, "an event"))


def spent(federation: Private, client: str = "alder") -> float:
    """Return ε of all that the client was charged, by other means than the code under test."""
    events = events_of(Ledger(federation.states[client], "data").read()[1])
    return gaussian_epsilon([event.noise_multiplier for event in events])


# More answers than were agreed on.


@both_units
def test_rounds_beyond_the_last_are_refused_though_the_budget_would_bear_them(mechanism: str):
    """The parent leaves out that the run is over, and goes on opening rounds."""
    federation = Private(agreed(mechanism, rounds=2)).opened()
    federation.granted(GENEROUS)
    for round_ in range(2):
        publish(federation, round_)
        federation.train(round_=round_)
    for round_ in (2, 3, 999_999):
        model = publish(federation, round_)
        with pytest.raises(ConsentRefused, match=f"agreed to 2 rounds of orchard, from 0, and round {round_} is"):
            delivered(federation, str(keys.Ticket("orchard", round_)), ticket(federation.settings, round_, model))
        with pytest.raises(ExceptionGroup):
            federation.sweep_client("alder")
    assert federation.charges() == [("orchard", 0), ("orchard", 1)]
    assert len(federation.uploads()) == 2


def test_all_that_a_parent_gets_from_a_federation_costs_no_more_than_was_agreed():
    federation = Private(agreed("client", rounds=5)).opened()
    federation.granted(GENEROUS)
    for round_ in [3, 0, 4, 1, 4, 2, 5, 0, 9]:  # in any order, again, and beyond the end
        for info in list(federation.parent_bucket.list("orchard/public/models/")):
            federation.parent_bucket.remove(info.key)
        publish(federation, round_, OTHER)
        try:
            federation.train(round_=round_)
        except ConsentRefused:
            assert round_ >= 5
    assert sorted(federation.charges()) == [("orchard", round_) for round_ in range(5)]
    assert spent(federation) == pytest.approx(EPSILON)


@both_units
@pytest.mark.parametrize("restored", [False, True], ids=["another model", "an earlier bucket"])
def test_a_round_that_is_opened_again_gets_the_bytes_of_its_first_answer(mechanism: str, restored: bool):
    federation = Private(agreed(mechanism)).opened()
    earlier = contents(federation.parent_bucket)
    federation.train()
    answer = federation.parent_bucket.read(UPDATE)
    publish(federation, 1)
    federation.train(round_=1)
    if restored:
        federation.parent_bucket = Bucket(federation.clock)
        for key, data in earlier.items():
            federation.parent_bucket.create(key, data)
    else:
        for key in (str(keys.Model("orchard", 1)), UPDATE, UPDATE.replace("000000", "000001")):
            federation.parent_bucket.remove(key)
        publish(federation, 0, OTHER)
    federation.clock.advance(10_000)
    federation.sweep_client("alder")
    assert federation.parent_bucket.read(UPDATE) == answer
    assert federation.charges() == [("orchard", 0), ("orchard", 1)]


@both_units
def test_a_client_that_is_made_to_train_for_nothing_again_and_again_pays_nothing_and_sends_nothing(mechanism: str):
    """The round closes while it trains, and is opened again. It costs the client its computing time: not prevented."""
    federation = Private(agreed(mechanism)).opened()
    learn = federation.client("alder").learn
    newer = str(keys.Model("orchard", 1))

    def closing(*arguments: Any) -> Learned:
        publish(federation, 1)
        return learn(*arguments)

    federation.change = lambda client: replace(client, learn=closing)
    for _ in range(5):
        federation.clock.advance(10_000)
        federation.sweep_client("alder")
        federation.parent_bucket.remove(newer)
    assert federation.learners["alder"].calls == [0] * 5
    assert (federation.charges(), federation.uploads()) == ([], {})


def test_a_withdrawal_that_is_removed_and_asked_for_again_is_a_withdrawal():
    federation = Private(agreed("client")).opened()
    federation.granted(0.01)
    federation.train()
    (withdrawn,) = federation.uploads()
    federation.parent_bucket.remove(withdrawn)
    federation.granted(GENEROUS)
    federation.train()
    assert federation.uploads().keys() == {withdrawn}


def test_a_parent_that_answers_for_a_client_gets_no_answer_of_the_client():
    federation = Private(agreed("client")).opened()
    federation.upload("alder", 0, update_file(FIRST, "alder", 0))
    federation.train()
    federation.sweep_client("alder")
    assert (federation.charges(), federation.uploads()[UPDATE]) == ([], {sha256(update_file(FIRST, "alder", 0))})


def test_an_upload_that_is_forged_to_name_an_unknown_entry_stops_the_client_and_nothing_else():
    """With it two parents can find out whether two clients keep one account: not prevented."""
    federation = Private(agreed("client")).opened()
    federation.upload("alder", 1, update_file(FIRST, "alder", 1, ledger="f" * 64))
    with pytest.raises(LedgerError, match="is in no account"):
        federation.train()
    assert federation.charges() == []
    federation.train("birch")
    assert federation.charges("birch") == [("orchard", 0)]


# Other settings.


@pytest.mark.parametrize(
    "changes",
    [{"rounds": 5}, {"privacy": MECHANISMS["client"] | {"epsilon": 80.0}}, {"privacy": {"mechanism": "none"}}],
    ids=["longer", "less noise", "no noise"],
)
@pytest.mark.parametrize("round_", [0, 1])
def test_settings_that_are_changed_under_way_get_nothing(changes: dict[str, object], round_: int):
    federation = Private(agreed("client")).opened()
    if round_:
        federation.train()
        publish(federation, 1)
    before, uploads = answers(federation.states["alder"]), federation.uploads()
    weaker = federation_settings(PAIR, **{"rounds": 2, "quorum": 2, "privacy": MECHANISMS["client"]} | changes)
    federation.parent_bucket.replace(str(keys.Settings("orchard")), weaker.to_bytes())
    with pytest.raises(ConsentRefused, match="settings_sha256 is pinned"):
        federation.train(round_=round_)
    assert (answers(federation.states["alder"]), federation.uploads()) == (before, uploads)


@both_units
def test_a_federation_under_another_name_gets_nothing_before_the_client_agrees_to_it(mechanism: str):
    federation = Private(agreed(mechanism)).opened()
    federation.train()
    for key, data in contents(federation.parent_bucket).items():
        federation.parent_bucket.create(key.replace("orchard/", "meadow/"), data)
    before = contents(federation.states["alder"])
    forged = ticket(federation.settings, 0, federation.models[0], federation="meadow")
    with pytest.raises(Forbidden):
        inbox(federation).create(str(keys.Ticket("meadow", 0)), forged)
    federation.inboxes["alder"].create(str(keys.Ticket("meadow", 0)), forged)  # in a bucket that granted it as well
    with pytest.raises(ConsentRefused, match=r"no \[\[agreement\]\] on 'meadow'"):
        client_rounds.handle(federation.client("alder"), ObjectCreated("alder", "meadow/inbox/000000.json", "an event"))
    assert contents(federation.states["alder"]) == before


# Forged tickets.


@pytest.mark.parametrize(
    ("round_", "model_of"),
    [(0, 0), (1, 1), (1, 0), (2, 2), (999_999, 0)],
    ids=["old", "a copy", "stale", "next", "far"],
)
@pytest.mark.parametrize("words", [{}, {"last": "rejected: norm", "model": "../../etc/passwd"}], ids=["", "odd"])
def test_a_forged_ticket_gets_nothing_that_the_open_round_would_not(
    round_: int, model_of: int, words: dict[str, str], caplog: pytest.LogCaptureFixture
):
    """Round 1 is open, and answered; alder had no ticket for it yet."""
    caplog.set_level(logging.WARNING)
    federation = Private(agreed("client", rounds=4)).opened()
    federation.inboxes["alder"] = Bucket(federation.clock)
    federation.train()
    publish(federation, 1)
    federation.train(round_=1)
    before = contents(federation.states["alder"]), federation.uploads()
    model = model_file(federation.settings, model_of, FIRST)
    delivered(federation, str(keys.Ticket("orchard", round_)), ticket(federation.settings, round_, model, **words))
    assert (contents(federation.states["alder"]), federation.uploads()) == before


def test_nothing_in_an_inbox_can_be_replaced_and_nothing_beside_it_made_or_seen():
    federation = Private(agreed("client")).opened()
    bucket = inbox(federation)
    with pytest.raises(AlreadyExists):
        bucket.create(str(keys.Ticket("orchard", 0)), b"{}")
    for key in ("orchard/releases/000000.safetensors", "ledger/data/000001.json", "orchard/agreed.json"):
        for attempt in (
            bucket.read,
            bucket.stat,
            lambda key: bucket.create(key, b"{}"),
            lambda key: [*bucket.list(key)],
        ):
            with pytest.raises(Forbidden):
                attempt(key)


# Models that are made for the purpose.


def test_a_model_that_is_not_the_tickets_is_refused_by_the_event_and_taken_by_the_timer_at_the_price_of_one_answer():
    """The ticket tells a mix-up. The models are the parent's to make: a timer without a ticket takes what is there."""
    federation = Private(agreed("client")).opened()
    publish(federation, 0, OTHER)
    with pytest.raises(DifferentContent, match="the ticket names"):
        client_rounds.handle(
            federation.client("alder"), ObjectCreated("alder", "orchard/inbox/000000.json", "an event")
        )
    assert (federation.charges(), federation.uploads()) == ([], {})
    federation.clock.advance(10_000)
    federation.sweep_client("alder")
    assert federation.charges() == [("orchard", 0)]


def test_two_clients_that_are_shown_different_models_pay_the_same_and_answer_once():
    """Clients cannot see it: they read one bucket, each at its own time."""
    federation = Private(agreed("client", inboxes=False)).opened()
    federation.train("alder")
    publish(federation, 0, OTHER)
    federation.train("birch")
    publish(federation, 0)
    federation.train("alder")
    federation.train("birch")
    assert [federation.charges(client) for client in PAIR] == [[("orchard", 0)]] * 2
    assert all(len(digests) == 1 for digests in federation.uploads().values())


def linear(federation: Private, weight: float, dtype: type = np.float32) -> Arrays:
    """Return a global model of the task's, all of whose weights are this number."""
    first = tensors.load(federation.models[0])
    return {name: np.full(array.shape, weight, dtype) for name, array in first.items()}


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("mechanism", "epochs"), [("client", 1), ("example", 1), ("example", 3)])
def test_a_model_that_is_not_finite_costs_nothing_and_gets_nothing(
    mechanism: str, epochs: int, weight: float, tmp_path: Path
):
    """Three convex steps on it gave a difference that no noise can be put on, after the round was charged."""
    federation = real(tmp_path, agreed(mechanism, rounds=1, train={"local_epochs": epochs}))
    publish(federation, 0, linear(federation, weight))
    with pytest.raises(FedbucketError, match=r"not finite, in \['weight', 'bias'\]"):
        federation.train()
    federation.clock.advance(10_000)
    with pytest.raises(ExceptionGroup):
        federation.sweep_client("alder")
    assert (federation.charges(), federation.uploads()) == ([], {})


LARGE = [1e10, -1e30, 3e38]


@pytest.mark.parametrize("weight", LARGE)
def test_weights_beside_which_several_steps_would_round_a_row_off_cost_nothing_and_get_nothing(
    weight: float, tmp_path: Path
):
    federation = real(tmp_path, agreed("example", rounds=1, train=STRONG["example"] | {"local_epochs": 3}))
    publish(federation, 0, linear(federation, weight))
    with pytest.raises(FedbucketError, match=r"weights above .*; nothing was learned"):
        federation.train()
    assert (federation.charges(), federation.uploads()) == ([], {})


@pytest.mark.parametrize(
    ("mechanism", "epochs", "weight"),
    [
        *[(*case, weight) for case in (("client", 1), ("example", 1)) for weight in (0.0, 1.0, -1e-40, *LARGE)],
        *[("example", 3, weight) for weight in (0.0, 1.0, -1e-40, 3e9)],
    ],
)
def test_whatever_the_weights_a_client_is_moved_by_its_data_no_further_than_the_noise_is_made_for(
    mechanism: str, epochs: int, weight: float, tmp_path: Path
):
    """Unit client: all rows are other ones; unit example: one is not there."""
    whole, other = (moved(tmp_path, mechanism, epochs, weight, change) for change in (same, CHANGES[mechanism]))
    for name in whole.difference:
        assert np.isfinite(whole.difference[name]).all()
    distance = np.sqrt(sum(np.sum((whole.difference[name] - tensor) ** 2) for name, tensor in other.difference.items()))
    assert distance <= whole.sensitivity * (1 + 1e-9)
    assert weight != 0 or distance > 0.1 * whole.sensitivity


def test_without_privacy_one_row_is_read_off_its_update(tmp_path: Path):
    """Mechanism "none" promises nothing: on a model of zeros, a linear layer's gradient is the row times a vector."""
    federation = real(tmp_path, federation_settings(PAIR, rounds=1))
    rewrite(tmp_path / "own.npz", lambda inputs, targets: (inputs[:1], targets[:1]))
    publish(federation, 0, linear(federation, 0.0))
    federation.train()
    weights, _ = federation.update()
    with np.load(tmp_path / "own.npz") as data:
        (row,) = data["train_inputs"]
    found = weights["weight"] / weights["bias"][:, None]
    assert found == pytest.approx(np.tile(row, (len(found), 1)), rel=1e-5)


Rows = tuple[np.ndarray, np.ndarray]


def same(inputs: np.ndarray, targets: np.ndarray) -> Rows:
    return inputs, targets


STRONG = {"client": {"learning_rate": 100.0}, "example": {"learning_rate": 1.0}}  # or Δ would not be come near
CHANGES: dict[str, Callable[[np.ndarray, np.ndarray], Rows]] = {
    "client": lambda inputs, targets: (-inputs, (targets + 1) % 3),
    "example": lambda inputs, targets: (inputs[1:], targets[1:]),
}


def rewrite(path: Path, change: Callable[[np.ndarray, np.ndarray], Rows]) -> None:
    """Change a client's training rows."""
    with np.load(path) as data:
        arrays = dict(data)
    arrays["train_inputs"], arrays["train_targets"] = change(arrays["train_inputs"], arrays["train_targets"])
    np.savez(path, **arrays)


@dataclass
class Moved:
    """What leaves a client but for the noise, and Δ, which the noise is made for."""

    difference: Mapping[str, np.ndarray]
    sensitivity: float


def moved(
    folder: Path, mechanism: str, epochs: int, weight: float, change: Callable[[np.ndarray, np.ndarray], Rows]
) -> Moved:
    """Let alder train a real task, on a model of these weights."""
    federation = real(folder, agreed(mechanism, rounds=1, train=STRONG[mechanism] | {"local_epochs": epochs}))
    rewrite(folder / "own.npz", change)
    publish(federation, 0, linear(federation, weight))
    learn = federation.client("alder").learn
    found: list[Moved] = []

    def watched(*arguments: Any) -> Learned:
        learned, plan = learn(*arguments), arguments[4]
        difference, statement = plan.release(learned.difference, np.zeros)
        found.append(Moved(difference, statement["sensitivity"]))
        return learned

    federation.change = lambda client: replace(client, learn=watched)
    federation.train()
    (only,) = found
    return only
