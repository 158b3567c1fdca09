"""Looking at a federation from outside: where it stands, and whether its history is true."""

import pytest

from aggregator.inspection import status, verify
from exchange import keys
from exchange.documents import sha256
from exchange.errors import NotFound
from exchange.records import Pruned, RemovedUpdate, StoredUpdate
from tests.support.arithmetic import FIRST, trained, update_file
from tests.support.buckets import Bucket, contents
from tests.support.federation import Federation
from tests.support.settings import CLIENTS, DEADLINE, PRIVATE, federation_settings


def answers(federation: Federation) -> dict[str, str]:
    return {answer.client: answer.state for answer in status(federation.parent_bucket, "orchard").answers}


# Status.


def test_a_federation_that_was_not_started_has_no_status():
    federation = Federation()
    with pytest.raises(NotFound):
        status(federation.parent_bucket, "orchard")
    federation.parent_bucket.create("orchard/public/federation.json", federation.settings.to_bytes())
    with pytest.raises(NotFound, match="was not started"):
        status(federation.parent_bucket, "orchard")


def test_the_status_of_a_new_federation_is_that_everyone_is_waited_for():
    federation = Federation().start()
    federation.clock.advance(30)
    found = status(federation.parent_bucket, "orchard")
    assert (found.federation, found.round, found.rounds, found.quorum) == ("orchard", 0, 3, 2)
    assert (found.age, found.deadline, found.finished) == (30, DEADLINE, None)
    assert found.settings_sha256 == federation.settings.sha256
    assert answers(federation) == dict.fromkeys(CLIENTS, "waiting")


def test_the_status_tells_how_every_client_stands():
    federation = Federation(federation_settings(("alder", "birch", "cedar", "dogwood", "elder"), quorum=3)).start()
    federation.offline = set(federation.settings.roster)
    federation.deliver_all()
    federation.upload("alder", 0, update_file(trained(FIRST, "alder", 0), "alder", 0))
    federation.upload("birch", 0, b"garbage")
    federation.upload("cedar", 0, None)
    assert answers(federation) == {
        "alder": "uploaded",
        "birch": "uploaded",
        "cedar": "uploaded",
        "dogwood": "waiting",
        "elder": "waiting",
    }
    federation.deliver_all()
    assert list(answers(federation).values()) == ["accepted", "rejected", "withdrawn", "waiting", "waiting"]
    details = [answer.detail for answer in status(federation.parent_bucket, "orchard").answers]
    assert details[1].startswith("not-safetensors: expected a safetensors file")
    assert [details[0], *details[2:]] == [None] * 4


def test_a_client_that_has_not_answered_by_the_deadline_is_late():
    federation = Federation().start()
    federation.upload("alder", 0, update_file(trained(FIRST, "alder", 0), "alder", 0))
    federation.clock.advance(DEADLINE - 0.001)
    assert answers(federation) == {"alder": "uploaded", "birch": "waiting", "cedar": "waiting"}
    federation.clock.advance(0.001)
    assert answers(federation) == {"alder": "uploaded", "birch": "late", "cedar": "late"}


def test_the_status_is_that_of_the_newest_round():
    federation = Federation().start()
    federation.deliver_until(keys.Model("orchard", 2))
    found = status(federation.parent_bucket, "orchard")
    assert found.round == 2
    assert answers(federation) == dict.fromkeys(CLIENTS, "waiting")


def test_the_status_of_a_finished_run_says_why_it_ended_and_waits_for_nobody():
    federation = Federation().run()
    found = status(federation.parent_bucket, "orchard")
    assert (found.round, found.finished, found.answers) == (3, "rounds", [])


def test_looking_changes_nothing():
    federation = Federation().start()
    federation.deliver_until(keys.Model("orchard", 1))
    before = contents(federation.parent_bucket)
    status(federation.parent_bucket, "orchard")
    list(verify(federation.parent_bucket, "orchard"))
    assert contents(federation.parent_bucket) == before


# Verify.


def verdicts(federation: Federation, workers: int = 1) -> list[str]:
    return [found.verdict for found in verify(federation.parent_bucket, "orchard", workers)]


def tampered(federation: Federation, key: str, at: int = -1) -> Federation:
    """Change one byte of an object behind the store's back."""
    data = bytearray(federation.parent_bucket.read(key))
    data[at] ^= 1
    federation.parent_bucket.replace(key, bytes(data))
    return federation


def eventful() -> Federation:
    """Return a run with a rejection, a withdrawal, an absence and a void round."""
    federation = Federation(federation_settings(rounds=4, stop={"tolerance": 1e-9}))
    federation.instead = {
        ("alder", 0): lambda: federation.upload("alder", 0, b"garbage"),
        ("birch", 1): lambda: federation.upload("birch", 1, None),
        ("cedar", 1): lambda: None,
        ("alder", 3): lambda: None,
    }
    return federation.run()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_true_history_is_good(workers: int):
    assert verdicts(eventful(), workers) == ["good"] * 4
    assert verdicts(Federation(federation_settings(rounds=2, privacy=PRIVATE)).run(), workers) == ["good"] * 2


def test_a_federation_without_rounds_has_no_history():
    assert verdicts(Federation().start()) == []


@pytest.mark.parametrize("at", [-1, -30, 100], ids=["last-byte", "middle", "header"])
@pytest.mark.parametrize("round_", [1, 2, 3])
def test_a_byte_changed_in_a_model_is_found(round_: int, at: int):
    found = verdicts(tampered(Federation().run(), f"orchard/public/models/{round_:06d}.safetensors", at))
    assert found[round_ - 1] == "bad"
    assert found[: round_ - 1] == ["good"] * (round_ - 1)


@pytest.mark.parametrize("change", [{"absent": ("cedar",)}, {"relative_change": 0.5}, {"void_rounds": 1}])
def test_a_summary_that_says_what_is_not_so_is_found(change: dict[str, object]):
    federation = Federation().run()
    key = str(keys.Summary("orchard", 1))
    federation.parent_bucket.replace(key, federation.summary(1).model_copy(update=change).to_bytes())
    found = list(verify(federation.parent_bucket, "orchard"))
    assert [verdict.verdict for verdict in found] == ["good", "bad", "good"]
    assert key in found[1].detail


@pytest.mark.parametrize("at", [-1, 8, 0], ids=["last-byte", "header", "first-byte"])
@pytest.mark.parametrize("round_", [0, 1, 2])
def test_a_byte_changed_in_an_update_is_found(round_: int, at: int):
    federation = tampered(Federation().run(), f"orchard/updates/birch/{round_:06d}.safetensors", at)
    found = list(verify(federation.parent_bucket, "orchard"))
    assert [verdict.verdict for verdict in found] == ["bad" if n == round_ else "good" for n in range(3)]
    assert f"updates/birch/{round_:06d}" in found[round_].detail


def test_a_member_left_out_of_a_cohort_is_found():
    federation = Federation().run()
    cohort = federation.cohort(1)
    fewer = cohort.model_copy(update={"members": cohort.members[:2]})
    federation.parent_bucket.replace("orchard/rounds/000001/cohort.json", fewer.to_bytes())
    assert verdicts(federation) == ["good", "bad", "good"]


@pytest.mark.parametrize("missing", ["rounds/000001/cohort.json", "updates/cedar/000001.safetensors"])
def test_an_object_that_is_gone_is_bad_and_the_other_rounds_are_looked_at(missing: str):
    federation = Federation().run()
    federation.parent_bucket = copied(federation, without=f"orchard/{missing}")
    assert verdicts(federation) == ["good", "bad", "good"]


def copied(federation: Federation, without: str | None = None) -> Bucket:
    """Return another bucket with the same objects, at other versions and times."""
    copy = Bucket(federation.clock)
    copy.create("another/object.json", b"{}")
    for key, data in reversed(contents(federation.parent_bucket).items()):
        if key != without:
            copy.create(key, data)
    return copy


# Verify, after the retention command.


def pruned(federation: Federation, round_: int, *members: StoredUpdate) -> Federation:
    """Write down that those updates of a round were removed; remove nothing."""
    removed = tuple(RemovedUpdate(key=each.key, size=each.size, sha256=each.sha256) for each in members)
    record = Pruned(federation="orchard", round=round_, removed=removed)
    federation.parent_bucket.create(str(keys.Pruned("orchard", round_)), record.to_bytes())
    return federation


def test_a_round_whose_updates_were_removed_on_record_is_pruned_and_the_others_are_looked_at():
    federation = Federation().run()
    members = federation.cohort(1).members
    pruned(federation, 1, *members)
    for member in members:
        federation.parent_bucket.remove(member.key)
    found = list(verify(federation.parent_bucket, "orchard"))
    assert [verdict.verdict for verdict in found] == ["good", "pruned", "good"]
    assert found[1].detail.startswith("3 of 3 updates were removed, as orchard/rounds/000001/pruned.json says")
    assert sha256(federation.models[2]) in found[1].detail


def test_a_round_of_which_one_update_is_removed_so_far_is_pruned():
    federation = Federation().run()
    members = federation.cohort(1).members
    federation.parent_bucket.remove(members[1].key)
    assert verdicts(pruned(federation, 1, *members)) == ["good", "pruned", "good"]


def test_a_round_of_which_nothing_is_removed_yet_is_computed_anew():
    federation = Federation().run()
    assert verdicts(pruned(federation, 1, *federation.cohort(1).members)) == ["good", "good", "good"]


def test_an_update_that_is_missing_and_not_on_record_is_bad():
    federation = Federation().run()
    members = federation.cohort(1).members
    federation.parent_bucket.remove(members[1].key)
    assert verdicts(federation) == ["good", "bad", "good"]
    assert verdicts(pruned(federation, 1, members[0], members[2])) == ["good", "bad", "good"]


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"size": 1}], ids=["digest", "size"])
def test_a_record_of_something_else_than_what_was_averaged_is_bad(change: dict[str, object]):
    federation = Federation().run()
    members = federation.cohort(1).members
    federation.parent_bucket.remove(members[1].key)
    assert verdicts(pruned(federation, 1, members[1].model_copy(update=change))) == ["good", "bad", "good"]


def test_an_update_that_was_changed_beside_one_that_was_removed_is_bad():
    federation = Federation().run()
    members = federation.cohort(1).members
    federation.parent_bucket.remove(members[0].key)
    pruned(federation, 1, members[0])
    assert verdicts(federation) == ["good", "pruned", "good"]
    assert verdicts(tampered(federation, members[2].key)) == ["good", "bad", "good"]


def test_a_record_that_is_not_sound_is_bad():
    federation = Federation().run()
    federation.parent_bucket.remove(federation.cohort(1).members[0].key)
    federation.parent_bucket.create("orchard/rounds/000001/pruned.json", b"{}")
    assert verdicts(federation) == ["good", "bad", "good"]


# Verify, after a copy.


def test_a_bucket_that_was_copied_is_good_though_its_versions_are_new():
    federation = eventful()
    federation.parent_bucket = copied(federation)
    member = federation.cohort(0).members[0]
    assert federation.parent_bucket.stat(member.key).version != member.version
    assert verdicts(federation) == ["good"] * 4


def test_a_copied_bucket_with_a_changed_update_is_bad():
    federation = Federation().run()
    federation.parent_bucket = copied(federation)
    tampered(federation, "orchard/updates/birch/000001.safetensors")
    assert verdicts(federation) == ["good", "bad", "good"]
