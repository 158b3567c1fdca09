"""The targets of `make fuzz` on what they begin with, and on a little noise; fuzzing itself takes longer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.corpus import kept
from tests.fuzz.targets import TARGETS, seeds
from tests.support import hostile

EVERY_TARGET = pytest.mark.parametrize("target", TARGETS)


@EVERY_TARGET
def test_a_target_takes_what_it_begins_with(target: str):
    for data in seeds(target):
        TARGETS[target](data)


@EVERY_TARGET
def test_a_target_takes_what_fuzzing_has_found(target: str):
    for data in kept(target):
        TARGETS[target](data)


@EVERY_TARGET
def test_a_target_takes_noise(target: str):
    @settings(max_examples=60)
    @given(st.binary() | st.sampled_from(seeds(target)).flatmap(hostile.changed))
    def take(data: bytes) -> None:
        TARGETS[target](data)

    take()
