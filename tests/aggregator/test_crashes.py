"""A function may die at any call to a store: before the store did what was asked, or after, when it is done and nobody
knows. Every one of these places is tried, for every handler alone and for a whole small run."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from exchange import keys, tensors
from exchange.events import ObjectCreated
from exchange.public import newest_model
from exchange.records import Cohort
from exchange.spec import FederationSettings
from tests.support.arithmetic import FIRST, mean, model_file, reference, trained, update_file
from tests.support.buckets import contents
from tests.support.federation import TIME_LIMIT, Federation
from tests.support.settings import DEADLINE, EXAMPLES, PRIVATE, federation_settings
from tests.support.watched import Crash, CrashingStore, Flaky, Killed, Unavailable, tolerated

PAIR = ("alder", "birch")
SETTINGS = federation_settings(PAIR, rounds=2, quorum=2)
NOISED = federation_settings(PAIR, rounds=1, quorum=2, privacy=PRIVATE)


def crashing(federation: Federation, plan: Crash) -> None:
    federation.watch = lambda store: CrashingStore(store, plan)


def count_calls(act: Callable[[Federation], object], federation: Federation) -> int:
    """Return how many calls to stores `act` makes when nothing goes wrong."""
    plan = Crash()
    crashing(federation, plan)
    act(federation)
    return len(plan.calls)


# Whole runs.


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("settings", "error", "redelivered"),
    [(SETTINGS, Unavailable, True), (NOISED, Killed, True), (SETTINGS, Killed, False), (NOISED, Unavailable, False)],
    ids=["failed-and-redelivered", "noised-killed-redelivered", "killed-and-swept", "noised-failed-swept"],
)
def test_a_crash_at_any_call_of_a_run_changes_nothing(
    when: str, settings: FederationSettings, error: type[BaseException], redelivered: bool
):
    undisturbed = reference(SETTINGS, [PAIR, PAIR])
    calls = count_calls(Federation.run, Federation(settings).start())
    assert calls > 100
    for at in range(calls):
        plan = Crash(at, when, error)
        federation = Federation(settings).start()
        crashing(federation, plan)
        try:
            federation.run(retries=redelivered)
            assert plan.crashed
            assert federation.models == (undisturbed if settings is SETTINGS else models_of_uploads(federation))
            assert len(federation.uploads()) == 2 * settings.rounds
            assert federation.ending().round == settings.rounds
            federation.assert_sound()
        except AssertionError as failure:
            failure.add_note(f"after a crash {when} call {at}, {plan.calls[at]}")
            raise


@pytest.mark.parametrize("seed", range(20))
def test_a_run_on_stores_that_fail_all_the_time_ends_well(seed: int):
    federation = Federation(federation_settings(PAIR, rounds=2, quorum=2, privacy=PRIVATE)).start()
    plan = Flaky(seed, probability=0.03)
    crashing(federation, plan)
    federation.run(duplicates=True)
    assert plan.crashed
    assert federation.models == models_of_uploads(federation)
    assert all(federation.summary(round_).averaged == PAIR for round_ in range(2))
    federation.assert_sound()


def models_of_uploads(federation: Federation) -> list[bytes]:
    """Return the models that the updates in the bucket must give, whatever these are."""
    model, rounds = FIRST, federation.settings.rounds
    files = [model_file(federation.settings, 0, model)]
    for round_ in range(rounds):
        updates = federation.folder("updates/")
        members = [
            (tensors.load(updates[str(keys.Update("orchard", client, round_))]), EXAMPLES[client]) for client in PAIR
        ]
        model = mean(members, model)
        files.append(model_file(federation.settings, round_ + 1, model, "rounds" if round_ + 1 == rounds else None))
    return files


# One handler at a time: what it was woken by comes again, and that alone must be enough.


@dataclass(frozen=True)
class Scene:
    """A federation in which one handler is about to be woken by `event`, or by the timer of `timer`."""

    federation: Federation
    event: ObjectCreated | None = None
    timer: str | None = None

    def act(self, federation: Federation) -> None:
        if self.event is not None:
            federation.deliver(self.event)
        elif self.timer == "parent":
            federation.sweep_parent()
        else:
            federation.sweep_client(self.timer)

    def again(self) -> None:
        """Wake the handler once more; a timer fires a few times, and later, when what it began is held for dead."""
        for _ in range(1 if self.event else 3):
            self.federation.clock.advance(0 if self.event else TIME_LIMIT)
            self.act(self.federation)

    def outcome(self) -> dict[tuple[str, str], object]:
        """Return all that is in the buckets, but for how often training was tried, which event froze a cohort, and the
        tickets of rounds that are over."""
        federation = self.federation
        newest = newest_model(federation.parent_bucket, "orchard")
        buckets = {"parent": federation.parent_bucket}
        buckets |= {f"inbox of {client}": inbox for client, inbox in federation.inboxes.items()}
        buckets |= {f"state of {client}": state for client, state in federation.states.items()}
        return {
            (name, key): _without_event(key, data)
            for name, bucket in buckets.items()
            for key, data in contents(bucket).items()
            if not isinstance(parsed := keys.parse(key), keys.Attempt)
            and not (isinstance(parsed, keys.Ticket) and parsed.round != newest)
        }


def _without_event(key: str, data: bytes) -> object:
    if isinstance(keys.parse(key), keys.Cohort):
        return Cohort.from_bytes(data, key).model_copy(update={"frozen_by": ""})
    return data


def publish() -> Scene:
    federation = Federation(SETTINGS).start()
    return Scene(federation, federation.deliver_until(keys.Model("orchard", 0)))


def publish_the_end() -> Scene:
    federation = Federation(federation_settings(PAIR, rounds=1)).start()
    return Scene(federation, federation.deliver_until(keys.Model("orchard", 1)))


def record() -> Scene:
    federation = Federation(SETTINGS).start()
    return Scene(federation, federation.deliver_until(keys.Update("orchard", "birch", 0)))


def record_a_rejection() -> Scene:
    federation = Federation(SETTINGS).start()
    federation.instead[("birch", 0)] = lambda: federation.upload("birch", 0, b"not a weight file")
    return Scene(federation, federation.deliver_until(keys.Update("orchard", "birch", 0)))


def record_a_withdrawal() -> Scene:
    federation = Federation(SETTINGS).start()
    federation.instead[("birch", 0)] = lambda: federation.upload("birch", 0, None)
    return Scene(federation, federation.deliver_until(keys.Update("orchard", "birch", 0, withdrawn=True)))


def aggregate() -> Scene:
    federation = Federation(SETTINGS).start()
    return Scene(federation, federation.deliver_until(keys.Receipt("orchard", 0, "alder")))


def aggregate_with_a_tolerance() -> Scene:
    federation = Federation(federation_settings(PAIR, stop={"tolerance": 1e-9})).start()
    return Scene(federation, federation.deliver_until(keys.Receipt("orchard", 0, "alder")))


def aggregate_a_void_round() -> Scene:
    federation = Federation(SETTINGS).start()
    federation.instead[("birch", 0)] = lambda: federation.upload("birch", 0, None)
    return Scene(federation, federation.deliver_until(keys.Receipt("orchard", 0, "alder")))


def train(settings: FederationSettings = SETTINGS) -> Scene:
    federation = Federation(settings).start()
    return Scene(federation, federation.deliver_until(keys.Ticket("orchard", 0)))


def sweep_what_no_event_told() -> Scene:
    federation = Federation(SETTINGS).start()
    federation.events.clear()
    for client in PAIR:
        federation.upload(client, 0, update_file(trained(FIRST, client, 0), client, 0))
    return Scene(federation, timer="parent")


def sweep_a_deadline() -> Scene:
    federation = Federation(federation_settings()).start()
    federation.offline = {"cedar"}
    federation.deliver_all()
    federation.clock.advance(DEADLINE)
    return Scene(federation, timer="parent")


def sweep_the_end() -> Scene:
    scene = publish_the_end()
    return Scene(scene.federation, timer="parent")


def sweep_as_a_client() -> Scene:
    return Scene(Federation(federation_settings(PAIR, inboxes=False)).start(), timer="birch")


SCENES = [
    publish,
    publish_the_end,
    record,
    record_a_rejection,
    record_a_withdrawal,
    aggregate,
    aggregate_with_a_tolerance,
    aggregate_a_void_round,
    train,
    sweep_what_no_event_told,
    sweep_a_deadline,
    sweep_the_end,
    sweep_as_a_client,
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("prepare", SCENES)
def test_a_handler_that_crashed_at_any_call_ends_as_if_nothing_had_happened(prepare: Callable[[], Scene], when: str):
    undisturbed = prepare()
    before = undisturbed.outcome()
    calls = count_calls(undisturbed.act, undisturbed.federation)
    assert undisturbed.outcome() != before
    undisturbed.again()
    for error in (Unavailable, Killed):
        for at in range(calls):
            scene, plan = prepare(), Crash(at, when, error)
            crashing(scene.federation, plan)
            with tolerated():
                scene.act(scene.federation)
            assert plan.crashed, f"call {at} did not fail"
            scene.again()
            assert scene.outcome() == undisturbed.outcome(), f"after a crash {when} call {at}, {plan.calls[at]}"
            scene.federation.assert_sound()


@pytest.mark.parametrize("prepare", SCENES)
def test_a_handler_that_was_done_already_changes_nothing(prepare: Callable[[], Scene]):
    scene = prepare()
    scene.act(scene.federation)
    scene.again()
    before = scene.outcome()
    scene.again()
    assert scene.outcome() == before


@pytest.mark.parametrize("settings", [SETTINGS, NOISED], ids=["plain", "noised"])
def test_an_update_is_never_made_visible_before_it_is_kept_in_private_state(settings: FederationSettings):
    for when in ("before", "after"):
        scene = train(settings)
        plan = Crash("create orchard/releases/000000.safetensors", when, Killed)
        crashing(scene.federation, plan)
        with tolerated():
            scene.act(scene.federation)
        assert plan.crashed
        assert scene.federation.uploads() == {}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [Unavailable, Killed])
def test_a_client_that_crashed_at_any_call_has_released_one_result_and_paid_once(when: str, error: type[BaseException]):
    calls = count_calls((scene := train(NOISED)).act, scene.federation)
    for at in range(calls):
        scene, plan = train(NOISED), Crash(at, when, error)
        crashing(scene.federation, plan)
        with tolerated():
            scene.act(scene.federation)
        assert plan.crashed
        scene.federation.assert_sound()
        scene.again()
        scene.again()
        assert list(scene.federation.uploads()) == ["orchard/updates/alder/000000.safetensors"]
        scene.federation.assert_sound()


def test_a_result_is_never_kept_before_it_is_paid_for():
    for when in ("before", "after"):
        scene = train(NOISED)
        plan = Crash("create ledger/data/000001.json", when, Killed)
        crashing(scene.federation, plan)
        with tolerated():
            scene.act(scene.federation)
        assert plan.crashed
        assert not [key for key in contents(scene.federation.states["alder"]) if "release" in key]


def test_a_summary_is_there_before_the_model_that_it_is_of():
    scene = aggregate()
    plan = Crash("commit orchard/public/models/000001.safetensors", "before", Killed)
    crashing(scene.federation, plan)
    with tolerated():
        scene.act(scene.federation)
    assert plan.crashed
    assert scene.federation.summary(0) is not None
    assert len(scene.federation.models) == 1
