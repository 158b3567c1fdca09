"""Two clients, two rounds, two functions at the same time: all there is to see."""

from collections.abc import Iterator

import pytest

from tests.simulation import campaign
from tests.simulation.small_worlds import Race, explore, races

RACES = {race.name: race for race in races()}
QUICK = [
    race for name, race in RACES.items() if name.endswith("round 1") and not {"noise,", "past"} & set(name.split())
]
PAST_THE_DEADLINE = RACES["sweep and aggregate past the deadline in round 1"]


@pytest.fixture(autouse=True)
def _hushed() -> Iterator[None]:
    with campaign.hushed():
        yield


@pytest.mark.parametrize("race", QUICK, ids=lambda race: race.name)
def test_every_way_through_a_race_ends_well(race: Race):
    found = explore(race)
    print(f"{race.name}: {found.states} states, {found.ends} ends")
    assert found.states > 500
    assert found.ends > 50


@pytest.mark.slow
@pytest.mark.parametrize("race", [race for race in races() if race not in QUICK], ids=lambda race: race.name)
def test_every_way_through_the_other_races_ends_well(race: Race):
    test_every_way_through_a_race_ends_well(race)


@pytest.mark.slow
def test_a_cohort_that_is_listed_again_is_found():
    with campaign.called("list again after freezing").applied(), pytest.raises(AssertionError):
        explore(PAST_THE_DEADLINE)
