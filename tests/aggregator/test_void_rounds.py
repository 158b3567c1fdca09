"""Rounds that end without a quorum: the model stays as it is, and three in a row are the end."""

import numpy as np
import pytest

from aggregator import rounds as parent_rounds
from exchange import keys, tensors
from exchange.errors import CohortUnreadable
from exchange.public import FINAL
from tests.support.arithmetic import FIRST, reference
from tests.support.buckets import contents
from tests.support.federation import TIME_LIMIT, Federation
from tests.support.settings import CLIENTS, DEADLINE, federation_settings


def test_a_void_round_passes_the_model_on_unchanged():
    federation = Federation(federation_settings(rounds=2))
    federation.instead = {(client, 0): lambda: None for client in CLIENTS}
    federation.run()
    before, after = tensors.load(federation.models[0]), tensors.load(federation.models[1])
    assert before.keys() == after.keys() == FIRST.keys()
    assert all(np.array_equal(after[name], array) for name, array in FIRST.items())
    assert federation.models == reference(federation.settings, [(), CLIENTS])
    summary = federation.summary(0)
    assert (summary.averaged, summary.num_examples, summary.relative_change) == ((), 0, None)
    assert (summary.absent, summary.void_rounds, summary.finished) == (CLIENTS, 1, None)


def test_updates_that_are_too_few_are_not_averaged():
    federation = Federation(federation_settings(quorum=3, rounds=2))
    federation.instead[("cedar", 0)] = lambda: federation.upload("cedar", 0, None)
    federation.run()
    assert federation.models == reference(federation.settings, [(), CLIENTS])
    assert federation.cohort(0).void
    assert federation.cohort(0).members == ()
    assert [ticket.last for ticket in federation.tickets("alder")] == [None, "void"]


def test_a_round_that_nobody_answers_ends_at_twice_its_deadline():
    federation = Federation(federation_settings(rounds=5))
    federation.offline = set(CLIENTS)
    began = federation.clock.now
    federation.run()
    cohorts = [federation.parent_bucket.stat(f"orchard/rounds/{round_:06d}/cohort.json") for round_ in range(3)]
    assert [cohort.created - began for cohort in cohorts] == [2 * DEADLINE, 4 * DEADLINE, 6 * DEADLINE]


def test_three_void_rounds_in_a_row_finish_the_run():
    federation = Federation(federation_settings(rounds=10))
    federation.offline = set(CLIENTS)
    federation.run()
    assert len(federation.models) == 4
    assert (federation.ending().reason, federation.ending().round) == ("void", 3)
    assert [federation.summary(round_).finished for round_ in range(3)] == [None, None, "void"]
    assert tensors.layout_of(federation.models[3]).metadata[FINAL] == "void"


def test_a_round_that_is_not_void_sets_the_count_back():
    federation = Federation(federation_settings(rounds=6))
    federation.instead = {(client, round_): lambda: None for client in CLIENTS for round_ in (0, 1, 3, 4)}
    federation.run()
    assert federation.models == reference(federation.settings, [(), (), CLIENTS, (), (), CLIENTS])
    assert [federation.summary(round_).void_rounds for round_ in range(6)] == [1, 2, 0, 1, 2, 0]
    assert federation.ending().reason == "rounds"


def test_a_round_without_the_summary_before_it_is_an_error_and_no_fresh_count_of_void_rounds():
    federation = Federation(federation_settings()).start()
    federation.deliver_until(keys.Model("orchard", 1))
    lost = str(keys.Summary("orchard", 0))
    whole = contents(federation.parent_bucket)
    federation.restore({key: data for key, data in whole.items() if key != lost})
    federation.clock.advance(2 * DEADLINE)
    with pytest.raises(ExceptionGroup) as caught:
        federation.sweep_parent()
    assert caught.group_contains(CohortUnreadable, match=lost)
    assert len(federation.models) == 2
    federation.parent_bucket.create(lost, whole[lost])
    federation.clock.advance(TIME_LIMIT)
    assert federation.run().models == reference(federation.settings, [CLIENTS, (), CLIENTS])


def test_a_last_round_that_is_void_ends_the_run_with_its_rounds():
    federation = Federation(federation_settings(rounds=2))
    federation.instead = {(client, 1): lambda: None for client in CLIENTS}
    federation.run()
    assert federation.models == reference(federation.settings, [CLIENTS, ()])
    assert federation.ending().reason == "rounds"


def test_a_sweep_that_finds_a_round_past_its_deadline_without_a_quorum_says_so(caplog):
    federation = Federation(federation_settings()).start()
    federation.clock.advance(DEADLINE - 1)
    parent_rounds.sweep(federation.parent, "a timer")
    assert caplog.messages == []
    federation.clock.advance(1)
    parent_rounds.sweep(federation.parent, "a timer")
    assert caplog.messages == ["orchard: round 0 is past its deadline, without its quorum"]
