"""A few schedules on every run, from a fresh seed that is printed at the head of the tests; and whether the simulation
itself keeps what it promises: the same seed is the same schedule, and a broken handler is found."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.simulation import campaign
from tests.simulation.mutants import MUTANTS, Edit, Mutant, StaleMutant
from tests.simulation.schedule import in_words, run, shrink

SCHEDULES = 80  # about three seconds
QUORUM = "quorum off by one: less than it"


@pytest.fixture(autouse=True)
def _hushed() -> Iterator[None]:
    with campaign.hushed():
        yield


def test_no_schedule_breaks_a_law():
    first_seed = int(os.environ["FEDBUCKET_SIMULATION_SEED"])
    for seed in range(first_seed, first_seed + SCHEDULES):
        outcome = run(seed)
        assert outcome.law is None, f"{outcome.detail}\npython -m tests.simulation --seed {seed}"


def test_schedules_are_unkind():
    tally = campaign.run_some(range(30))
    assert tally.seeds_of_failures == []
    assert tally.store_calls > 300 * tally.schedules
    assert tally.crashes > tally.schedules
    assert tally.duplicates > 0


def test_a_seed_is_the_same_schedule_in_another_process():
    told = [
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "11"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert told[0] == told[1] == in_words(run(11)) + "\n"


@pytest.mark.parametrize("seed", range(10))
def test_the_departures_of_a_schedule_are_the_whole_schedule(seed: int):
    drawn = run(seed)
    assert run(seed, drawn.departures) == drawn


def test_a_failing_schedule_shrinks_to_the_few_departures_that_matter():
    with campaign.called(QUORUM).applied():
        failed = next(outcome for outcome in map(run, range(100)) if outcome.law and len(outcome.departures) > 50)
        smallest = shrink(failed)
        assert smallest.law == failed.law
        assert len(smallest.departures) <= 10
        for name in smallest.departures:
            fewer = {other: what for other, what in smallest.departures.items() if other != name}
            assert run(failed.seed, fewer).law != failed.law, f"{name} does not matter"
    assert f"BROKEN  {smallest.law}" in in_words(smallest)
    assert run(failed.seed, smallest.departures).law is None, "the handlers as they are keep the law"


def test_most_mutants_are_found_by_the_first_schedules():
    found = [number for number in range(len(MUTANTS)) if campaign.hunt(number, first_seed=0, patience=6) is not None]
    assert len(found) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=[mutant.name for mutant in MUTANTS])
def test_every_mutant_is_found(number: int):
    assert campaign.hunt(number, first_seed=int(os.environ["FEDBUCKET_SIMULATION_SEED"])) is not None


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_mutant_is_undone_afterwards(mutant: Mutant):
    with mutant.applied():
        pass
    assert run(0).law is None


def test_a_mutant_of_code_that_has_changed_is_an_error():
    stale = Mutant("stale", (Edit("aggregator.cohort:close", "what once stood there", "pass"),))
    with pytest.raises(StaleMutant, match="what once stood there"), stale.applied():
        pass
