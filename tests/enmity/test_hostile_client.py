"""What a client that keeps no rule can do with its rights: to read `public/`, to create and read under its own prefix.

Each test is an attempt, with what comes of it; `docs/threat-model.md` has them in a table.
"""

import json

import numpy as np
import pytest

from aggregator import rounds as parent_rounds
from aggregator.inspection import status, verify
from exchange import keys, tensors
from exchange.errors import AlreadyExists, CohortUnreadable
from exchange.events import ObjectCreated
from exchange.stores import Store, put
from fedbucket.bucket_report import read_bucket
from fedbucket.retention import removable
from tests.support.arithmetic import FIRST, mean, model_file, reference, trained, update_file
from tests.support.buckets import contents
from tests.support.federation import Federation
from tests.support.permitted import parent_bucket_of_client
from tests.support.settings import CLIENTS, EXAMPLES, PRIVATE, federation_settings
from tests.support.watched import Crash, CrashingStore

OWN = "orchard/updates/birch/"


def as_birch(federation: Federation) -> Store:
    """Return the parent bucket as birch has it."""
    return parent_bucket_of_client(federation.parent_bucket, "birch")


def own(round_: int = 0) -> str:
    return str(keys.Update("orchard", "birch", round_))


def honest(round_: int = 0, **metadata: str) -> bytes:
    """Return what birch would upload if it kept the rules; `metadata` goes over what that says."""
    model = tensors.load(reference(federation_settings(), [CLIENTS] * round_)[round_])
    return update_file(trained(model, "birch", round_), "birch", round_, **metadata)


# Updates that are not what they seem.


@pytest.mark.parametrize(
    ("replayed", "code"),
    [
        (keys.Update("orchard", "birch", 0), "wrong-round"),
        (keys.Update("orchard", "alder", 0), "wrong-round"),
        (keys.Update("orchard", "alder", 1), "wrong-client"),
    ],
    ids=str,
)
def test_an_update_that_is_uploaded_again_is_rejected(replayed: keys.Update, code: str):
    federation = Federation()

    def replay() -> None:
        as_birch(federation).create(own(1), federation.parent_bucket.read(str(replayed)))  # alder's: from alder itself

    federation.instead[("birch", 1)] = replay
    federation.run()
    assert federation.summary(1).rejected == {"birch": code}
    assert federation.models == reference(federation.settings, [CLIENTS, ("alder", "cedar"), CLIENTS])


def test_what_an_update_says_of_its_weight_changes_no_byte():
    federation = Federation()
    claims = {"num_examples": "1000000000", "examples": "1000000000", "weight": "1e9"}
    federation.instead[("birch", 0)] = lambda: put(as_birch(federation), own(), honest(**claims))
    assert federation.run().models == reference(federation.settings, [CLIENTS] * 3)


def test_an_update_that_claims_noise_and_has_none_is_averaged_as_it_is():
    federation = Federation(federation_settings(privacy=PRIVATE)).start()
    agreed = {name: PRIVATE[name] for name in ("mechanism", "unit", "clip_norm")} | {"adjacency": "replace-one"}
    lie = agreed | {"epsilon_round": 1e-9, "noise_multiplier": -1, "sigma": "infinite"}
    as_birch(federation).create(own(), honest(privacy=json.dumps(lie)))
    parent_rounds.record(federation.parent, keys.Update("orchard", "birch", 0))
    assert federation.receipt("birch", 0).outcome == "accepted"


def test_an_update_as_large_as_the_norm_bound_moves_the_model_by_its_share_of_it():
    bound = 3.0
    federation = Federation(federation_settings(rounds=1, round={"max_update_norm": bound}))
    still = {name: array for name, array in FIRST.items() if array.dtype.kind == "f"}
    far = {name: array + np.float32(bound / np.sqrt(9.001)) for name, array in still.items()}
    for client in CLIENTS:
        update = update_file(far if client == "birch" else still, client, 0)
        federation.instead[(client, 0)] = lambda client=client, update=update: federation.upload(client, 0, update)
    federation.run()
    assert federation.summary(0).averaged == CLIENTS
    moved = tensors.load(federation.models[1])
    distance = np.sqrt(sum(np.sum((moved[name] - array) ** 2) for name, array in still.items()))
    assert distance == pytest.approx(bound * EXAMPLES["birch"] / sum(EXAMPLES.values()), rel=1e-3)


@pytest.mark.parametrize(
    "update",
    [
        update_file(trained(FIRST, "birch", 0) | {"\x1b[31m\n": np.zeros(2, np.float32)}, "birch", 0),
        update_file(trained(FIRST, "birch", 0), "birch\x1b[31m\n", 0),
        update_file(trained(FIRST, "birch", 0), "birch", 0, metrics='{"\x1b[31m": 1, "\x1b[31m": 2}'),
        b"\x02\0\0\0\0\0\0\0\x1b[31m\n",
    ],
    ids=["tensor", "client", "metrics", "bytes"],
)
def test_what_a_client_writes_reaches_no_terminal_with_its_control_characters(update: bytes):
    federation = Federation(federation_settings(metrics={"share": "open"})).start()
    as_birch(federation).create(own(), update)
    parent_rounds.record(federation.parent, keys.Update("orchard", "birch", 0))
    assert federation.receipt("birch", 0).detail.isprintable()


# Answers that change.


def test_of_two_uploads_under_one_key_the_second_is_refused():
    federation = Federation()
    federation.instead[("birch", 0)] = lambda: as_birch(federation).create(own(), honest())
    federation.start().deliver_until(keys.Receipt("orchard", 0, "birch"))
    with pytest.raises(AlreadyExists):
        as_birch(federation).create(own(), b"another answer")


@pytest.mark.parametrize("first", ["update", "withdrawal"])
def test_who_withdraws_and_updates_both_is_held_to_what_was_seen_first(first: str):
    federation = Federation()

    def both() -> None:
        answers = {"update": (own(), honest()), "withdrawal": (own().replace("safetensors", "withdrawn.json"), b"{}")}
        for key, data in sorted(answers.values(), key=lambda answer: answer != answers[first]):
            put(as_birch(federation), key, data)

    federation.instead[("birch", 0)] = both
    federation.run(duplicates=True)
    averaged = CLIENTS if first == "update" else ("alder", "cedar")
    assert federation.models == reference(federation.settings, [averaged, CLIENTS, CLIENTS])
    assert federation.summary(0).withdrawn == (() if first == "update" else ("birch",))


@pytest.mark.parametrize("frozen", [False, True], ids=["recorded", "in the cohort"])
@pytest.mark.parametrize("gone", [False, True], ids=["replaced", "deleted"])
def test_where_a_right_includes_overwriting_the_run_stands_still_until_the_update_is_restored(frozen: bool, gone: bool):
    """Not prevented by the handlers: the parties must not grant it, and the bucket must keep versions."""
    federation = Federation(federation_settings(quorum=3)).start()
    event = federation.deliver_until(keys.Receipt("orchard", 0, "alder"))
    recorded = federation.parent_bucket.read(own())
    if frozen:
        plan = Crash("begin orchard/public/models/000001.safetensors")
        federation.watch = lambda store: CrashingStore(store, plan)
        with pytest.raises(plan.error):
            federation.deliver(event)
        federation.watch = lambda store: store
    federation.parent_bucket.remove(own())
    if not gone:
        federation.parent_bucket.create(own(), honest(notes="another"))
    with pytest.raises(CohortUnreadable, match="birch"):
        federation.deliver(event)
    federation.clock.advance(10_000)
    with pytest.raises(ExceptionGroup):
        federation.sweep_parent()
    assert len(federation.models) == 1
    federation.parent_bucket.remove(own())
    federation.parent_bucket.create(own(), recorded)
    assert federation.run().models == reference(federation.settings, [CLIENTS] * 3)


# Floods.

SOUND_NAMES = [*(f"{OWN}{round_:06d}.safetensors" for round_ in range(900, 1000)), f"{OWN}999999.withdrawn.json"]
OTHER_NAMES = [
    *(f"{OWN}{number}.safetensors" for number in range(100)),  # not six digits
    f"{OWN}000000.safetensors.tmp",
    f"{OWN}.000000.safetensors",
    f"{OWN}notes/",
    f"{OWN}000000/receipts/birch.json",
    f"{OWN}../alder/000000.safetensors",
    f"{OWN}000000.safetensors\n",
    f"{OWN}٠٠٠٠٠٠.safetensors",
    f"{OWN}{'x' * 1000}",
]


def flooded() -> Federation:
    """Return a federation in whose bucket birch has put all of these names before it answers."""
    federation = Federation().start()
    for key in SOUND_NAMES + OTHER_NAMES:
        federation.parent_bucket.replace(key, b"rubbish")  # which, unlike create, takes any name
        federation.events.append(ObjectCreated("parent", key, f"parent:{key}"))
    return federation


def test_a_flood_under_its_own_prefix_changes_no_byte_and_leaves_nothing_behind():
    federation, undisturbed = flooded().run(), Federation().run()
    assert federation.models == undisturbed.models
    found = contents(federation.parent_bucket).keys() - {*SOUND_NAMES, *OTHER_NAMES}
    assert found == contents(undisturbed.parent_bucket).keys()


def test_after_a_flood_a_bucket_is_looked_at_and_pruned_as_ever():
    federation, undisturbed = flooded().run(), Federation().run()
    store = federation.parent_bucket
    assert [row.verdict for row in verify(store, "orchard")] == ["good"] * 3
    assert status(store, "orchard") == status(undisturbed.parent_bucket, "orchard")
    assert read_bucket(store, "orchard") == read_bucket(undisturbed.parent_bucket, "orchard")
    assert {round_: len(updates) for round_, updates in removable(store, "orchard", 999_999).items()} == {
        round_: len(CLIENTS) for round_ in range(3)
    }


def test_an_object_of_a_flood_costs_the_parent_an_event_and_a_handful_of_small_reads():
    federation = flooded()
    plan = Crash()
    federation.watch = lambda store: CrashingStore(store, plan)
    for key in OTHER_NAMES:
        federation.deliver(ObjectCreated("parent", key, "an event"))
    assert plan.calls == []
    federation.deliver(ObjectCreated("parent", SOUND_NAMES[0], "an event"))
    assert len(plan.calls) <= 5
    assert not any(SOUND_NAMES[0] in call for call in plan.calls)


def test_a_huge_update_is_rejected_unread():
    federation = Federation().start()
    plan = Crash()
    as_birch(federation).create(own(), bytes(10**7))
    federation.watch = lambda store: CrashingStore(store, plan)
    parent_rounds.record(federation.parent, keys.Update("orchard", "birch", 0))
    assert federation.receipt("birch", 0).code == "too-large"
    assert [call for call in plan.calls if own() in call] == [f"stat {own()}"]


# Rounds that are not open.


def test_answers_to_all_rounds_at_once_are_looked_at_when_their_rounds_open():
    federation = Federation()

    def in_advance() -> None:
        for round_ in range(4):
            as_birch(federation).create(own(round_), honest(round_) if round_ < 2 else honest(0))

    federation.instead = {("birch", 0): in_advance, ("birch", 1): lambda: None, ("birch", 2): lambda: None}
    federation.run()
    assert federation.models == reference(federation.settings, [CLIENTS, CLIENTS, ("alder", "cedar")])
    assert federation.summary(2).rejected == {"birch": "wrong-round"}


# What it can spoil by right: not prevented, and said so.


def test_a_lie_about_a_shared_metric_can_end_a_run_early():
    settings = federation_settings(rounds=6, metrics={"share": "open"}, stop={"patience": 2})
    truth = Federation(settings, metrics=lambda client, round_: {"accuracy": 0.1 * round_}).run()
    assert truth.ending().reason == "rounds"
    lie = Federation(
        settings, metrics=lambda client, round_: {"accuracy": -1e6 * round_ if client == "birch" else 0.1 * round_}
    )
    assert (lie.run().ending().reason, lie.ending().round) == ("patience", 3)


@pytest.mark.parametrize("value", [9.9e99, -9.9e99])
def test_a_lie_about_a_shared_metric_stops_no_handler_whatever_the_weights(value: float):
    """Without a bound well below the largest float64, a weight of 10⁹ took the weighted sum beyond it."""
    roster = [{"id": client, "examples": 10**18, "inbox": f"gs://{client}"} for client in CLIENTS]
    federation = Federation(
        federation_settings(metrics={"share": "open"}, client=roster), metrics=lambda *_: {"accuracy": value}
    ).run()
    assert federation.summary(2).metrics == {"accuracy": pytest.approx(value)}


def test_a_metric_beyond_every_measure_is_rejected():
    federation = Federation(federation_settings(metrics={"share": "open"})).start()
    as_birch(federation).create(own(), honest(metrics='{"accuracy": 1e100}'))
    parent_rounds.record(federation.parent, keys.Update("orchard", "birch", 0))
    assert federation.receipt("birch", 0).code == "metadata"


def test_a_client_without_whom_there_is_no_quorum_can_end_the_run():
    federation = Federation(federation_settings(quorum=3, rounds=9))
    for round_ in range(9):
        federation.instead[("birch", round_)] = lambda round_=round_: federation.upload("birch", round_, None)
    assert (federation.run().ending().reason, federation.ending().round) == ("void", 3)


def test_a_free_rider_is_averaged_like_everybody():
    federation = Federation(federation_settings(rounds=1))
    still = {name: array for name, array in FIRST.items() if array.dtype.kind == "f"}
    federation.instead[("birch", 0)] = lambda: put(as_birch(federation), own(), update_file(still, "birch", 0))
    members = [(still if client == "birch" else trained(FIRST, client, 0), EXAMPLES[client]) for client in CLIENTS]
    assert federation.run().models[1] == model_file(federation.settings, 1, mean(members, FIRST), "rounds")
