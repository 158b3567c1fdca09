"""When a round closes: the table of quorum, deadline and void, with its boundaries."""

from itertools import product

import pytest

from aggregator.cohort import close
from exchange.records import Receipt, RejectionCode, StoredUpdate
from tests.support.settings import CLIENTS, DEADLINE, EXAMPLES, federation_settings

JUST_BEFORE = DEADLINE - 0.001
TWICE = 2 * DEADLINE
JUST_BEFORE_TWICE = TWICE - 0.001

# One letter a client, in the order of the roster: accepted, rejected, withdrawn, or no answer yet.
OPEN, VOID = "stays open", "is void"


def receipt(client: str, letter: str) -> Receipt:
    if letter == "w":
        return Receipt(federation="orchard", round=4, client=client, outcome="withdrawn")
    if letter == "r":
        code = RejectionCode.NORM
        return Receipt(federation="orchard", round=4, client=client, outcome="rejected", code=code, detail="too far")
    update = StoredUpdate(
        client=client,
        key=f"orchard/updates/{client}/000004.safetensors",
        version="1",
        size=100,
        sha256="0" * 64,
        num_examples=EXAMPLES[client],
        norm=1.0,
    )
    return Receipt(federation="orchard", round=4, client=client, outcome="accepted", update=update)


def closed(answers: str, age: float, quorum: int):
    receipts = {
        client: receipt(client, letter) for client, letter in zip(CLIENTS, answers, strict=True) if letter != "-"
    }
    return close(federation_settings(quorum=quorum), 4, receipts, age, "event-1")


@pytest.mark.parametrize(
    ("answers", "age", "quorum", "outcome"),
    [
        # everyone has answered: no need to wait
        ("aaa", 0, 3, "alder birch cedar"),
        ("aaa", 0, 1, "alder birch cedar"),
        ("aar", 0, 2, "alder birch"),
        ("waa", 0, 2, "birch cedar"),
        ("wra", 0, 1, "cedar"),
        # a quorum, but somebody may still come: wait for the deadline
        ("aa-", 0, 2, OPEN),
        ("aa-", JUST_BEFORE, 2, OPEN),
        ("aa-", DEADLINE, 2, "alder birch"),
        ("a--", JUST_BEFORE, 1, OPEN),
        ("a--", DEADLINE, 1, "alder"),
        ("aaa", TWICE, 3, "alder birch cedar"),
        # no quorum at the deadline: wait once more as long
        ("a--", DEADLINE, 2, OPEN),
        ("a--", JUST_BEFORE_TWICE, 2, OPEN),
        ("a--", TWICE, 2, VOID),
        ("---", DEADLINE, 1, OPEN),
        ("---", JUST_BEFORE_TWICE, 1, OPEN),
        ("---", TWICE, 1, VOID),
        ("aa-", TWICE, 3, VOID),
        # a quorum within that time closes the round at once
        ("aa-", DEADLINE + 50, 2, "alder birch"),
        # out of reach: no need to wait
        ("ra-", 0, 3, VOID),
        ("ww-", 0, 2, VOID),
        ("rrr", 0, 1, VOID),
        ("www", 0, 1, VOID),
        ("rw-", 0, 1, OPEN),
        ("ar-", 0, 2, OPEN),
        ("aar", 0, 3, VOID),
    ],
)
def test_a_round_closes_when_and_with_whom_it_should(answers: str, age: float, quorum: int, outcome: str):
    cohort = closed(answers, age, quorum)
    if outcome == OPEN:
        assert cohort is None
    elif outcome == VOID:
        assert cohort.void
        assert cohort.members == ()
    else:
        assert not cohort.void
        assert [member.client for member in cohort.members] == outcome.split()


def test_a_cohort_says_how_the_round_ended_for_everyone_else():
    cohort = closed("rwa", 0, 1)
    assert (cohort.rejected, cohort.withdrawn, cohort.absent) == ({"alder": "norm"}, ("birch",), ())
    assert (cohort.federation, cohort.round, cohort.frozen_by) == ("orchard", 4, "event-1")
    assert closed("-a-", DEADLINE, 1).absent == ("alder", "cedar")
    void = closed("rw-", TWICE, 1)
    assert (void.rejected, void.withdrawn, void.absent) == ({"alder": "norm"}, ("birch",), ("cedar",))


def test_the_same_receipts_in_any_order_give_the_same_bytes():
    settings = federation_settings()
    receipts = {client: receipt(client, "a") for client in CLIENTS}
    backwards = dict(reversed(receipts.items()))
    assert close(settings, 4, receipts, 0, "e").to_bytes() == close(settings, 4, backwards, 0, "e").to_bytes()
    rejections = {client: receipt(client, letter) for client, letter in zip(CLIENTS, "rrw", strict=True)}
    backwards = dict(reversed(rejections.items()))
    assert close(settings, 4, rejections, 0, "e").to_bytes() == close(settings, 4, backwards, 0, "e").to_bytes()


@pytest.mark.parametrize("quorum", [1, 2, 3])
def test_nothing_waits_for_ever_and_no_round_closes_without_a_quorum(quorum: int):
    for answers in map("".join, product("arw-", repeat=3)):
        accepted = answers.count("a")
        for age in (0, JUST_BEFORE, DEADLINE, JUST_BEFORE_TWICE, TWICE, 10 * TWICE):
            cohort = closed(answers, age, quorum)
            assert cohort is not None or age < TWICE, "still open after twice the deadline"
            assert cohort is not None or "-" in answers, "still open though everyone has answered"
            if cohort is not None:
                assert cohort.void == (accepted < quorum)
                assert len(cohort.members) == (0 if cohort.void else accepted)
                everyone = [*(member.client for member in cohort.members), *cohort.rejected]
                everyone += [*cohort.withdrawn, *cohort.absent]
                assert cohort.void or sorted(everyone) == sorted(CLIENTS)


@pytest.mark.parametrize("quorum", [1, 2, 3])
def test_a_round_that_can_close_closes_the_same_way_later(quorum: int):
    ages = (0, JUST_BEFORE, DEADLINE, JUST_BEFORE_TWICE, TWICE)
    for answers in map("".join, product("arw-", repeat=3)):
        outcomes = [closed(answers, age, quorum) for age in ages]
        first = next(index for index, cohort in enumerate(outcomes) if cohort is not None)
        assert all(cohort == outcomes[first] for cohort in outcomes[first:])
