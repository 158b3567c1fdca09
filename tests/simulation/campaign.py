"""Many schedules, over all cores; and for each mutant, schedules until one finds it."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.remembered import remembered
from tests.simulation.schedule import run

_CHUNK = 50  # schedules: about two seconds
_PATIENCE = 3000  # schedules in which a mutant must be found; all are, in a tenth of that


@dataclass
class Tally:
    """What came of many schedules."""

    schedules: int = 0
    store_calls: int = 0
    crashes: int = 0
    duplicates: int = 0
    seeds_of_failures: list[int] = field(default_factory=list)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            *(mine + others for mine, others in zip(asdict(self).values(), asdict(other).values(), strict=True))
        )


@contextmanager
def hushed() -> Iterator[None]:
    """Run schedules within the context: fast, and without the handlers' warnings."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with remembered():
            yield
    finally:
        logging.disable(disabled)


def run_all(seeds: Sequence[int], workers: int | None = None) -> Tally:
    """Return what comes of the schedules of `seeds`."""
    chunks = [seeds[begin : begin + _CHUNK] for begin in range(0, len(seeds), _CHUNK)]
    with _pool(workers) as pool:
        return sum(pool.map(run_some, chunks), Tally())


def run_some(seeds: Sequence[int]) -> Tally:
    """Return what comes of the schedules of `seeds`, in this process."""
    tally = Tally()
    with hushed():
        for seed in seeds:
            outcome = run(seed)
            failed = [seed] if outcome.law else []
            tally += Tally(1, outcome.store_calls, outcome.crashes, outcome.duplicates, failed)
    return tally


def hunt_all(first_seed: int, workers: int | None = None) -> dict[str, int | None]:
    """Return, for each mutant, the first seed whose schedule finds it; None if none does."""
    with _pool(workers) as pool:
        found = pool.map(partial(hunt, first_seed=first_seed), range(len(MUTANTS)))
        return {mutant.name: seed for mutant, seed in zip(MUTANTS, found, strict=True)}


def hunt(number: int, first_seed: int, patience: int = _PATIENCE) -> int | None:
    """Return the first seed from `first_seed` on whose schedule finds mutant `number`."""
    with hushed(), MUTANTS[number].applied():
        return next((seed for seed in range(first_seed, first_seed + patience) if run(seed).law), None)


def called(name: str) -> Mutant:
    """Return the mutant of that name."""
    return next(mutant for mutant in MUTANTS if mutant.name == name)


def _pool(workers: int | None) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn"))
