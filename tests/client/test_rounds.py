"""The client's side of the loop: when it trains, what it keeps, and what it uploads."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from aggregator import rounds as parent_rounds
from client import rounds as client_rounds
from client.rounds import Client
from client.update import Learned
from exchange import keys, tensors
from exchange.errors import ConsentRefused, DifferentContent, InvalidDocument, LedgerError, StoreUnavailable, TaskError
from exchange.events import ObjectCreated
from exchange.spec import Budget, FederationSettings
from tests.support.arithmetic import FIRST, trained, update_file
from tests.support.buckets import Bucket, answers, contents
from tests.support.federation import TIME_LIMIT, Federation
from tests.support.settings import DEADLINE, PRIVATE, client_settings, federation_settings
from tests.support.watched import Crash, CrashingStore, Killed, tolerated

PLAIN = federation_settings()
NOISED = federation_settings(privacy=PRIVATE)
UPDATE = str(keys.Update("orchard", "birch", 0))
RELEASE = str(keys.Release("orchard", 0))
TICKET = ObjectCreated("birch", str(keys.Ticket("orchard", 0)), "an event")

both = pytest.mark.parametrize("settings", [PLAIN, NOISED], ids=["plain", "noised"])


def opened(settings: FederationSettings = PLAIN) -> Federation:
    """Return a federation in which birch has its first ticket, and nobody has answered."""
    federation = Federation(settings).start()
    federation.offline = set(settings.roster)
    federation.deliver_all()
    federation.offline.clear()
    return federation


def closed(federation: Federation) -> None:
    """Close the round without birch."""
    for client in ("alder", "cedar"):
        federation.upload(client, 0, update_file(trained(FIRST, client, 0), client, 0))
    federation.clock.advance(DEADLINE)
    federation.sweep_parent()
    assert len(federation.models) == 2


def uploaded(federation: Federation, round_: int = 0) -> bool:
    return str(keys.Update("orchard", "birch", round_)) in contents(federation.parent_bucket)


def learning(federation: Federation, learn: Callable[[Learned], Learned]) -> Client:
    """Return birch, whose training is followed by `learn`."""
    client = federation.client("birch")
    return replace(client, learn=lambda *arguments: learn(client.learn(*arguments)))


# What it uploads.


def test_an_update_is_the_global_model_and_what_was_learned():
    federation = opened()
    federation.deliver(TICKET)
    assert federation.parent_bucket.read(UPDATE) == update_file(trained(FIRST, "birch", 0), "birch", 0)
    assert federation.states["birch"].read(RELEASE) == federation.parent_bucket.read(UPDATE)


def test_what_did_not_move_is_uploaded_as_it_was():
    federation = opened()
    client_rounds.handle(learning(federation, lambda learned: Learned({})), TICKET)
    found = tensors.load(federation.parent_bucket.read(UPDATE))
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in FIRST.items() if array.dtype.kind == "f"
    }


def test_metrics_travel_only_if_there_are_any():
    federation = opened()
    federation.deliver(TICKET)
    assert "metrics" not in tensors.layout_of(federation.parent_bucket.read(UPDATE)).metadata
    federation = Federation(
        federation_settings(metrics={"share": "open"}), metrics=lambda client, round_: {"b": 0.5, "a": 1.0}
    )
    federation.run()
    assert tensors.layout_of(federation.parent_bucket.read(UPDATE)).metadata["metrics"] == '{"a": 1.0, "b": 0.5}'


@both
def test_a_ticket_that_comes_twice_is_answered_once(settings: FederationSettings):
    federation = opened(settings)
    federation.deliver(TICKET)
    federation.deliver(TICKET)
    assert federation.learners["birch"].calls == [0]
    federation.assert_sound()


def test_what_was_released_once_is_uploaded_again_without_training():
    federation = opened()
    federation.states["birch"].create(RELEASE, b"what was released")
    federation.deliver(TICKET)
    assert federation.parent_bucket.read(UPDATE) == b"what was released"
    assert federation.learners["birch"].calls == []


@both
def test_a_withdrawal_stands(settings: FederationSettings):
    federation = opened(settings)
    federation.states["birch"].create(str(keys.Release("orchard", 0, withdrawn=True)), b"{}")
    federation.deliver(TICKET)
    federation.clock.advance(TIME_LIMIT)
    federation.sweep_client("birch")
    assert federation.parent_bucket.read(str(keys.Update("orchard", "birch", 0, withdrawn=True))) == b"{}"
    assert not uploaded(federation)
    assert federation.learners["birch"].calls == []


@both
@pytest.mark.parametrize("answer", [b"from another machine", None], ids=["update", "withdrawal"])
def test_a_round_that_another_tool_has_answered_for_the_client_costs_nothing(
    settings: FederationSettings, answer: bytes | None
):
    federation = opened(settings)
    federation.upload("birch", 0, answer)
    before = contents(federation.parent_bucket), answers(federation.states["birch"])
    federation.deliver(TICKET)
    federation.sweep_client("birch")
    assert (contents(federation.parent_bucket), answers(federation.states["birch"])) == before
    assert federation.learners["birch"].calls == []


def test_a_release_that_is_not_what_was_uploaded_in_its_place_is_an_error():
    federation = opened()
    federation.states["birch"].create(RELEASE, b"what was released")
    federation.upload("birch", 0, b"from another machine")
    with pytest.raises(DifferentContent, match=UPDATE):
        federation.deliver(TICKET)


@both
def test_a_new_federation_under_an_old_name_is_refused_and_gets_nothing_of_the_old_one(settings: FederationSettings):
    federation = opened(settings)
    federation.deliver(TICKET)
    other = settings.model_copy(update={"rounds": settings.rounds + 1})
    again = opened(FederationSettings.from_bytes(other.to_bytes(), "federation.json"))
    again.states["birch"] = federation.states["birch"]
    with pytest.raises(ConsentRefused, match="a new federation takes a new name"):
        again.deliver(TICKET)
    assert not uploaded(again)


# When it trains.


@both
def test_it_trains_only_on_the_newest_model(settings: FederationSettings):
    federation = opened(settings)
    closed(federation)
    before = contents(federation.states["birch"])
    federation.deliver(TICKET)
    assert federation.learners["birch"].calls == []
    assert not uploaded(federation)
    assert contents(federation.states["birch"]) == before


def test_a_model_that_is_not_there_yet_is_not_waited_for():
    federation = opened()
    client_rounds.train(federation.client("birch"), "orchard", 1)
    assert federation.learners["birch"].calls == []
    assert contents(federation.states["birch"]) == {}


def test_a_finished_run_is_left_alone():
    federation = Federation().run()
    before = contents(federation.parent_bucket), contents(federation.states["birch"])
    client_rounds.train(federation.client("birch"), "orchard", 3)
    federation.sweep_client("birch")
    assert (contents(federation.parent_bucket), contents(federation.states["birch"])) == before


def test_a_final_model_is_not_trained_on_though_the_end_was_not_said_yet():
    federation = Federation(federation_settings(rounds=1)).start()
    federation.deliver_until(keys.Model("orchard", 1))
    assert not federation.finished
    client_rounds.train(federation.client("birch"), "orchard", 1)
    federation.sweep_client("birch")
    assert federation.learners["birch"].calls == [0]
    assert not uploaded(federation, 1)


@both
def test_a_round_that_closed_during_training_costs_nothing_and_gets_nothing(settings: FederationSettings):
    federation = opened(settings)

    def late(learned: Learned) -> Learned:
        closed(federation)
        return learned

    before = set(answers(federation.states["birch"]))
    client_rounds.handle(learning(federation, late), TICKET)
    assert federation.learners["birch"].calls == [0]
    assert not uploaded(federation)
    assert set(answers(federation.states["birch"])) - before == {str(keys.Attempt("orchard", 0, 0))}


@both
def test_a_run_that_finished_during_training_costs_nothing_and_gets_nothing(settings: FederationSettings):
    federation = opened(settings)

    def late(learned: Learned) -> Learned:
        federation.parent_bucket.create(str(keys.Finished("orchard")), b"{}")
        return learned

    before = set(answers(federation.states["birch"]))
    client_rounds.handle(learning(federation, late), TICKET)
    assert not uploaded(federation)
    assert set(answers(federation.states["birch"])) - before == {str(keys.Attempt("orchard", 0, 0))}


def test_a_model_other_than_the_ticket_names_is_refused():
    federation = opened()
    with pytest.raises(DifferentContent, match=f"the ticket names {'0' * 64}"):
        client_rounds.train(federation.client("birch"), "orchard", 0, "0" * 64)
    assert federation.learners["birch"].calls == []
    assert not uploaded(federation)
    assert RELEASE not in contents(federation.states["birch"])
    assert str(keys.Attempt("orchard", 0, 0)) not in contents(federation.states["birch"]), "it would hold up the timer"


def test_a_model_replaced_after_the_ticket_was_written_is_refused():
    federation = opened()
    model = bytearray(federation.models[0])
    model[-1] ^= 1
    federation.parent_bucket.replace(str(keys.Model("orchard", 0)), bytes(model))
    with pytest.raises(DifferentContent, match="SHA-256"):
        federation.deliver(TICKET)
    assert not uploaded(federation)


# What is none of its business.


def test_events_of_other_keys_ask_for_nothing():
    federation = opened()
    before = contents(federation.states["birch"])
    for key in (UPDATE, RELEASE, str(keys.Model("orchard", 0)), "orchard/inbox/notes.txt", "orchard/inbox/0.json", "x"):
        client_rounds.handle(federation.client("birch"), ObjectCreated("birch", key, "an event"))
    assert contents(federation.states["birch"]) == before
    assert federation.learners["birch"].calls == []


def test_a_client_without_an_inbox_takes_no_tickets():
    federation = Federation(federation_settings(inboxes=False)).start()
    client_rounds.handle(federation.client("birch"), TICKET)
    assert federation.learners["birch"].calls == []


def test_a_ticket_that_is_none_is_an_error():
    federation = opened()
    federation.inboxes["birch"].replace(TICKET.key, b'{"federation": "orchard"}')
    with pytest.raises(InvalidDocument, match=r"inbox/000000\.json: .*is missing"):
        federation.deliver(TICKET)
    assert federation.learners["birch"].calls == []


def test_a_client_is_warned_when_its_last_update_was_not_averaged(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "client.rounds")
    federation = Federation(federation_settings(rounds=2))
    federation.instead[("birch", 0)] = lambda: federation.upload("birch", 0, b"garbage")
    federation.run()
    messages = [record.getMessage() for record in caplog.records if record.name == "client.rounds"]
    assert messages == ["orchard: round 0 ended for birch: rejected: not-safetensors"]


# The timer.


@both
def test_a_sweep_answers_the_newest_model_once(settings: FederationSettings):
    federation = opened(settings)
    federation.sweep_client("birch")
    federation.clock.advance(10 * TIME_LIMIT)
    federation.sweep_client("birch")
    assert federation.learners["birch"].calls == [0]
    assert uploaded(federation)


def failing(learned: Learned) -> Learned:
    raise TaskError("the disk is full")


def test_a_sweep_leaves_an_attempt_alone_until_it_is_older_than_a_function_may_run():
    federation = opened()
    with pytest.raises(TaskError):
        client_rounds.handle(learning(federation, failing), TICKET)
    federation.clock.advance(TIME_LIMIT - 0.001)
    federation.sweep_client("birch")
    assert not uploaded(federation)
    federation.clock.advance(0.001)
    federation.sweep_client("birch")
    assert uploaded(federation)
    assert federation.learners["birch"].calls == [0, 0]


def test_the_newest_attempt_counts():
    federation = opened()
    for _ in range(2):
        with pytest.raises(TaskError):
            client_rounds.handle(learning(federation, failing), TICKET)
        federation.clock.advance(TIME_LIMIT / 2)
    federation.sweep_client("birch")
    assert not uploaded(federation)
    federation.clock.advance(TIME_LIMIT / 2)
    federation.sweep_client("birch")
    assert uploaded(federation)
    attempts = [key for key in contents(federation.states["birch"]) if "attempts" in key]
    assert attempts == [str(keys.Attempt("orchard", 0, number)) for number in range(3)]


def test_attempts_of_other_rounds_do_not_count():
    federation = opened()
    federation.states["birch"].create(str(keys.Attempt("orchard", 1, 0)), b"{}")
    federation.sweep_client("birch")
    assert uploaded(federation)


def test_a_sweep_that_finds_its_answer_asks_three_things_and_one_that_finds_the_end_asks_one():
    federation = opened(federation_settings(rounds=1))
    federation.sweep_client("birch")
    plan = Crash()
    federation.watch = lambda store: CrashingStore(store, plan)
    federation.sweep_client("birch")
    assert plan.calls == ["stat orchard/public/finished.json", "list orchard/public/models/", f"stat {UPDATE}"]
    federation.run()
    plan.calls.clear()
    federation.sweep_client("birch")
    assert plan.calls == ["stat orchard/public/finished.json"]


def test_before_the_first_model_a_sweep_finds_nothing_to_do():
    federation = Federation()
    federation.sweep_client("birch")
    assert contents(federation.states["birch"]) == {}


@pytest.mark.parametrize("error", [StoreUnavailable("no answer"), RuntimeError("a bug")], ids=["ours", "any"])
def test_a_federation_that_fails_holds_up_no_other(error: Exception):
    federation = opened()
    settings = client_settings("birch", PLAIN)
    other = settings.agreement[0].model_copy(update={"federation": "apiary"})
    client = federation.client("birch")

    def open_parent(agreement):
        if agreement.federation == "apiary":
            raise error
        return federation.parent_bucket

    own = settings.model_copy(update={"agreement": (other, *settings.agreement)})
    with pytest.raises(ExceptionGroup) as caught:
        client_rounds.sweep(replace(client, settings=own, open_parent=open_parent))
    assert len(caught.value.exceptions) == 1
    assert uploaded(federation)


# State that was lost.


def test_with_its_state_lost_a_client_that_has_answered_does_not_answer_again():
    federation = opened()
    federation.deliver(TICKET)
    federation.states["birch"] = Bucket(federation.clock)
    federation.sweep_client("birch")
    assert federation.learners["birch"].calls == [0]
    federation.assert_sound()


def test_with_its_state_lost_a_client_without_noise_answers_as_before():
    federation = opened()
    federation.deliver(TICKET)
    federation.states["birch"] = Bucket(federation.clock)
    federation.deliver(TICKET)
    federation.assert_sound()


def test_a_client_reads_each_entry_of_its_account_once_in_a_training():
    federation = Federation(federation_settings(rounds=4, privacy=PRIVATE)).start()
    federation.deliver_until(keys.Model("orchard", 3))
    plan = Crash()
    federation.watch = lambda store: CrashingStore(store, plan)
    federation.sweep_client("birch")
    entries = [f"read {keys.LedgerEntry('data', number)}" for number in range(5)]  # the last is this training's own
    assert [call for call in plan.calls if call.startswith("read ledger/")] == entries


def test_with_its_account_lost_a_client_releases_nothing():
    federation = opened(NOISED)
    federation.states["birch"] = Bucket(federation.clock)
    with pytest.raises(LedgerError, match="has no account"):
        federation.deliver(TICKET)
    assert answers(federation.states["birch"]) == {}
    assert federation.learners["birch"].calls == []
    assert len(federation.uploads()) == 0


def test_with_its_account_lost_a_client_that_has_answered_does_nothing():
    federation = opened(NOISED)
    federation.deliver(TICKET)
    federation.parent_bucket.replace(UPDATE, b"so that another upload would be seen")
    federation.states["birch"] = Bucket(federation.clock)
    federation.deliver(TICKET)
    assert answers(federation.states["birch"]) == {}
    assert federation.learners["birch"].calls == [0]
    assert len(federation.uploads()) == 1


def test_what_was_released_stays_at_home_while_its_entry_in_the_account_is_lost():
    federation = opened(NOISED)
    plan = Crash(f"create {UPDATE}", "before", Killed)
    federation.watch = lambda store: CrashingStore(store, plan)
    with tolerated():
        federation.deliver(TICKET)
    assert plan.crashed
    federation.watch = lambda store: store
    whole = federation.states["birch"]
    federation.states["birch"] = Bucket(federation.clock)
    for key, data in contents(whole).items():
        if key != "ledger/data/000001.json":
            federation.states["birch"].create(key, data)
    with pytest.raises(LedgerError, match="is in no account"):
        federation.deliver(TICKET)
    assert federation.uploads() == {}
    federation.states["birch"] = whole  # restored
    federation.deliver(TICKET)
    assert uploaded(federation)
    assert federation.learners["birch"].calls == [0]
    federation.assert_sound()


# What it cannot pay for.


class Poor(Federation):
    """birch has granted enough for some rounds, not for all."""

    def client(self, name: str) -> Client:
        client = super().client(name)
        if name != "birch":
            return client
        budget = Budget(unit="client", adjacency="replace-one", epsilon=6.0, delta=1e-5)
        return replace(client, settings=client.settings.model_copy(update={"budget": budget}))


def test_a_client_whose_budget_is_spent_withdraws_and_the_others_go_on():
    federation = Poor(federation_settings(privacy=PRIVATE, quorum=2)).run(duplicates=True)
    withdrawn = [federation.summary(round_).withdrawn for round_ in range(3)]
    paid = withdrawn.count(())
    assert 0 < paid < 3
    assert withdrawn == [()] * paid + [("birch",)] * (3 - paid)
    averaged = [federation.summary(round_).averaged for round_ in range(3)]
    assert averaged == [("alder", "birch", "cedar")] * paid + [("alder", "cedar")] * (3 - paid)
    assert federation.ending().reason == "rounds"
    federation.assert_sound()


def test_a_round_after_the_deadline_is_still_answered_while_it_is_open():
    federation = opened()
    federation.clock.advance(DEADLINE + 1)
    federation.deliver(TICKET)
    parent_rounds.record(federation.parent, keys.Update("orchard", "birch", 0))
    assert federation.receipt("birch", 0).outcome == "accepted"
