"""The drills of `docs/operations.md`: what went wrong, what is done, and what is to be seen afterwards."""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from aggregator.inspection import status, verify
from client.privacy.accounting import gaussian_epsilon
from client.privacy.ledger import Ledger, events_of
from client.privacy.plan import make_plan
from exchange import keys, tensors
from exchange.errors import DifferentContent, InvalidTensorFile, LedgerError, SettingsError, StoreUnavailable
from exchange.events import ObjectCreated
from exchange.spec import FederationSettings, read_federation
from exchange.stores import Store
from fedbucket import starting
from tests.support import private
from tests.support.arithmetic import reference
from tests.support.buckets import Bucket, contents
from tests.support.federation import Federation
from tests.support.private import DELTA, EPSILON, Private
from tests.support.settings import CLIENTS, DEADLINE, PRIVATE, federation_settings

ROOT = Path(__file__).parents[2]
SETTINGS = federation_settings(rounds=4)
UNDISTURBED = reference(SETTINGS, [CLIENTS] * 4)


def until(federation: Federation, round_: int) -> Federation:
    """Start, and go on until a round has opened."""
    federation.start().deliver_until(keys.Model(federation.settings.name, round_))
    return federation


def followed_by(first: Federation, settings: FederationSettings, folder: Path) -> Private:
    """Begin a federation from the last model of `first`, in the same buckets, as `fedbucket start --init` does."""
    last = folder / "last.safetensors"
    last.write_bytes(first.models[-1])
    second = Private(settings)
    second.clock, second.events, second.parent_bucket = first.clock, first.events, first.parent_bucket
    second.states |= {client: state for client, state in first.states.items() if client in second.states}
    second.inboxes |= {client: inbox for client, inbox in first.inboxes.items() if client in second.inboxes}
    starting.start(second.parent_bucket, settings, starting.given_model(last, settings))
    return second


def spent(federation: Federation, client: str) -> tuple[int, float]:
    """Return how many rounds a client's account holds, and the ε of them all, by other means than the code's."""
    charges = Ledger(federation.states[client], "data").read()[1]
    return len(charges), private.gaussian_epsilon([event.noise_multiplier for event in events_of(charges)])


def noise(federation: Private, round_: int) -> float:
    """Return the noise multiplier that an update states."""
    return federation.statement("alder", round_)["noise_multiplier"]


def assert_true(federation: Federation) -> None:
    """Hold what `verify` says of the bucket against "good"."""
    assert {row.verdict for row in verify(federation.parent_bucket, federation.settings.name)} == {"good"}


# A client's bucket is lost.


def test_a_clients_bucket_that_was_lost_and_made_again_gets_the_open_rounds_ticket_by_the_timer():
    federation = until(Federation(SETTINGS), 2)
    federation.empty_inbox("birch")
    federation.sweep_parent()
    assert contents(federation.inboxes["birch"]).keys() == {str(keys.Ticket("orchard", 2))}
    assert federation.run().models == UNDISTURBED


def test_while_a_clients_bucket_is_gone_it_takes_part_by_its_timer():
    class Gone(Federation):
        def _open_inbox(self, url: str) -> Store:
            if url == "gs://birch":
                raise StoreUnavailable("the bucket does not exist")
            return super()._open_inbox(url)

        def sweep_parent(self) -> None:
            with suppress(ExceptionGroup):
                super().sweep_parent()

        def deliver(self, event: ObjectCreated) -> None:
            with suppress(ExceptionGroup):
                super().deliver(event)

    federation = Gone(SETTINGS).run()
    assert contents(federation.inboxes["birch"]) == {}
    assert federation.models == UNDISTURBED


def test_a_client_whose_private_state_is_lost_stays_out_until_it_is_restored_and_spends_nothing_twice():
    federation = Private(federation_settings(rounds=4, privacy=PRIVATE))
    until(federation, 1)
    whole, federation.states["birch"] = federation.states["birch"], Bucket(federation.clock)
    with pytest.raises(LedgerError, match="restore the account: nothing is released without it"):
        federation.train("birch", 1)
    federation.offline = {"birch"}
    federation.sweep_parent()
    federation.deliver_all()
    federation.clock.advance(DEADLINE)
    federation.sweep_parent()
    assert federation.summary(1).absent == ("birch",)
    federation.states["birch"], federation.offline = whole, set()
    federation.run()
    assert [federation.summary(round_).averaged for round_ in (2, 3)] == [CLIENTS] * 2
    assert [round_ for _, round_ in federation.charges("birch")] == [0, 2, 3]
    federation.assert_sound()


# The parent's bucket is restored.


@pytest.mark.parametrize("lost", [0, 1, 6], ids=lambda lost: f"without its newest {lost}")
@pytest.mark.parametrize("cut", range(5, 50, 9))
def test_a_parent_bucket_that_was_restored_goes_on_to_the_same_models(cut: int, lost: int):
    federation = Federation(SETTINGS).start()
    for _ in range(cut):
        federation.deliver(federation.events.pop(0))
    made = list(dict.fromkeys(key for key, _ in federation.parent_bucket.attempts))
    whole = contents(federation.parent_bucket)
    federation.restore({key: whole[key] for key in made[: len(made) - lost]})
    assert federation.run().models == UNDISTURBED
    assert_true(federation)


def test_a_parent_bucket_that_lost_a_decision_goes_on_with_another_one_and_says_so_of_the_tickets():
    """Round 0 closed without birch, and its cohort and model 1 were lost; then birch answered."""
    federation = Federation(SETTINGS).start()
    federation.offline = {"birch"}
    federation.deliver_all()
    earlier = contents(federation.parent_bucket)
    federation.clock.advance(DEADLINE)
    federation.sweep_parent()
    federation.deliver_until(keys.Update("orchard", "cedar", 1))
    federation.restore(earlier)
    federation.offline = set()
    federation.sweep_client("birch")
    with pytest.raises(ExceptionGroup) as caught:
        federation.sweep_parent()
    federation.events.clear()
    assert federation.summary(0).averaged == CLIENTS
    assert caught.group_contains(DifferentContent, match="inbox/000001.json")
    federation.clock.advance(DEADLINE)
    for client in CLIENTS:
        federation.sweep_client(client)
    federation.events.clear()
    federation.sweep_parent()  # which closes the round, and has no more to say of it
    assert status(federation.parent_bucket, "orchard").round == 2
    assert_true(federation.run())


# Who takes part.


def test_a_client_that_is_stuck_is_waited_for_no_longer_than_the_deadline_and_left_out_of_the_next_federation(
    tmp_path: Path,
):
    first = Federation(federation_settings(rounds=2))
    first.offline = {"birch"}
    first.run()
    assert [first.summary(round_).absent for round_ in range(2)] == [("birch",)] * 2
    second = followed_by(first, federation_settings(("alder", "cedar"), rounds=3, name="orchard-2"), tmp_path)
    began = second.clock.now
    second.run()
    assert second.clock.now - began < DEADLINE  # nobody is waited for
    assert [second.summary(round_).averaged for round_ in range(3)] == [("alder", "cedar")] * 3
    assert_true(second)


def test_a_client_is_added_by_a_new_federation_from_the_last_model(tmp_path: Path):
    first = Private(federation_settings(("alder", "birch"), rounds=2, privacy=PRIVATE))
    first.run()
    second = followed_by(first, federation_settings(rounds=2, privacy=PRIVATE, name="orchard-2"), tmp_path)
    second.granted(2 * EPSILON, "alder", "birch")
    second.run()
    assert [second.summary(round_).averaged for round_ in range(2)] == [CLIENTS] * 2
    assert {client: spent(second, client)[0] for client in CLIENTS} == {"alder": 4, "birch": 4, "cedar": 2}
    assert_true(second)


# A mistake in the settings.


def test_a_mistake_that_is_found_before_the_start_is_told_by_name(tmp_path: Path):
    path = tmp_path / "federation.toml"
    path.write_text('name = "orchard"\nrounds = 0\n[round]\nquorum = 3\ndeadline = "2h"\n')
    with pytest.raises(SettingsError) as caught:
        read_federation(path)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["rounds", "train", "privacy", "client"]
    weights = tmp_path / "last.safetensors"
    weights.write_bytes(tensors.dump({"bias": np.array([1.0, np.nan]), "weight": np.zeros(3)}, {}))
    with pytest.raises(InvalidTensorFile, match=r"expected finite weights to start from, got others in \['bias'\]"):
        starting.given_model(weights, SETTINGS)


def test_a_mistake_that_is_found_after_the_start_takes_a_new_name_and_what_nobody_agrees_to_ends_by_itself(
    tmp_path: Path,
):
    wrong = Federation(federation_settings(rounds=9, train={"learning_rate": 100.0})).start()
    wrong.offline = set(CLIENTS)
    wrong.deliver_all()
    mended = federation_settings(rounds=2, train={"learning_rate": 0.1})
    with pytest.raises(DifferentContent, match="a federation is never changed: give this one another name"):
        starting.start(wrong.parent_bucket, mended, wrong.models[0])
    second = followed_by(wrong, federation_settings(rounds=2, name="orchard-2"), tmp_path).run()
    assert [second.summary(round_).averaged for round_ in range(2)] == [CLIENTS] * 2
    wrong.run()
    assert (wrong.ending().reason, wrong.ending().round) == ("void", 3)
    assert wrong.clock.now - 1_700_000_000.0 < 6 * DEADLINE + 100


# Privacy.


def test_a_budget_that_is_spent_in_round_12_withdraws_its_client_until_it_grants_more():
    settings = federation_settings(rounds=15, privacy=PRIVATE)
    plan = make_plan(settings, "birch")
    federation = Private(settings)
    federation.granted(gaussian_epsilon(12**0.5 / plan.event.noise_multiplier, DELTA) * 1.0001, "birch")
    federation.start().run_rounds(14)
    withdrawn = [federation.summary(round_).withdrawn for round_ in range(14)]
    assert withdrawn == [()] * 12 + [("birch",)] * 2
    assert spent(federation, "birch") == (
        12,
        pytest.approx(private.gaussian_epsilon([plan.event.noise_multiplier] * 12)),
    )
    federation.granted(EPSILON, "birch")
    federation.run()
    assert federation.summary(14).averaged == CLIENTS
    assert federation.ending().reason == "rounds"
    assert_true(federation)


def test_a_run_is_extended_by_ten_rounds_and_its_account_is_carried_on(tmp_path: Path):
    first = Private(federation_settings(rounds=3, privacy=PRIVATE))
    first.run()
    second = followed_by(first, federation_settings(rounds=10, privacy=PRIVATE, name="orchard-2"), tmp_path)
    last, begun = (tensors.load(federation.models[at]) for federation, at in ((first, -1), (second, 0)))
    assert all((last[name] == begun[name]).all() for name in last)
    second.granted(2 * EPSILON, *CLIENTS)
    second.run()
    assert [second.summary(round_).averaged for round_ in range(10)] == [CLIENTS] * 10
    multipliers = [noise(federation, at) for federation, rounds in ((first, 3), (second, 10)) for at in range(rounds)]
    both = private.gaussian_epsilon(multipliers)
    assert EPSILON < both < 1.6 * EPSILON  # less than the sum of the two
    assert [spent(second, client) for client in CLIENTS] == [(13, pytest.approx(both))] * 3
    assert_true(second)


def test_an_extension_that_a_budget_does_not_bear_is_withdrawn_from_before_training(tmp_path: Path):
    first = Private(federation_settings(rounds=3, privacy=PRIVATE))
    first.run()
    second = followed_by(first, federation_settings(rounds=10, privacy=PRIVATE, name="orchard-2"), tmp_path).run()
    assert (second.ending().reason, second.ending().round) == ("void", 3)
    assert [spent(second, client)[0] for client in CLIENTS] == [3] * 3
    assert all(learner.calls == [] for learner in second.learners.values())


def test_every_drill_names_the_tests_that_make_it_and_every_test_is_of_a_drill():
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    drills = re.split(r"^### ", text.partition("## Drills")[2], flags=re.MULTILINE)[1:]
    found = [re.findall(r"`tests/fedbucket/test_drills\.py::(\w+)`", drill) for drill in drills]
    assert len(drills) == 7
    assert all(found)
    source = Path(__file__).read_text(encoding="utf-8")
    made = set(re.findall(r"^def (test_\w+)\(", source, re.MULTILINE))
    assert made - {name for names in found for name in names} == {
        "test_every_drill_names_the_tests_that_make_it_and_every_test_is_of_a_drill"
    }
