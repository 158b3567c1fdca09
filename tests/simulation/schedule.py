"""One schedule, run and judged; and a failing one, made as small as it gets."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from tests.simulation import duties, laws
from tests.simulation.choices import Choices, Drawn, Recorded
from tests.simulation.scheduler import BEGIN, Violation
from tests.simulation.world import World


@dataclass(frozen=True)
class Outcome:
    """What came of a schedule.

    Attributes:
        law, detail: which law was broken, and how; None if all was well.
        departures: what made it.
        log: what happened, a line a function.
    """

    seed: int
    law: str | None
    detail: str
    departures: dict[str, str]
    store_calls: int
    crashes: int
    duplicates: int
    log: list[str]


def run(seed: int, departures: Mapping[str, str] | None = None) -> Outcome:
    """Return what comes of the schedule of a seed; of these departures only, if they are given."""
    choices: Choices = Drawn(seed) if departures is None else Recorded(departures)
    world = World(choices, seed, duties.check, laws.check_status)
    law, detail = None, ""
    try:
        world.run()
        laws.check(world)
    except Violation as violation:
        law, detail = violation.law, str(violation)
    return Outcome(
        seed,
        law,
        detail,
        choices.made,
        world.scheduler.step,
        world.faults.crashes,
        world.duplicates,
        [f"{at - BEGIN:9.1f} s  {words}" for at, words in world.log],
    )


def shrink(failed: Outcome) -> Outcome:
    """Return a schedule that breaks the same law with as few departures as leaving out finds (Zeller's ddmin)."""
    best = failed
    parts = 2
    while (size := len(best.departures)) > 0:
        parts = min(parts, size)
        for fewer in _without_a_part(list(best.departures.items()), parts):
            found = run(failed.seed, fewer)
            if found.law == failed.law and len(found.departures) < size:
                best, parts = found, max(2, parts - 1)
                break
        else:
            if parts == size:
                break
            parts = min(size, 2 * parts)
    return best


def _without_a_part(items: list[tuple[str, str]], parts: int) -> Iterator[dict[str, str]]:
    edges = [number * len(items) // parts for number in range(parts + 1)]
    for begin, end in pairwise(edges):
        yield dict(items[:begin] + items[end:])


def in_words(outcome: Outcome) -> str:
    """Return the trace of a schedule."""
    lines = [f"seed {outcome.seed}", "", "What was out of the ordinary:"]
    lines += [f"  {name}: {what}" for name, what in outcome.departures.items()] or ["  nothing"]
    lines += ["", "What happened:", *(f"  {line[:200]}" for line in outcome.log)]
    return "\n".join([*lines, "", f"BROKEN  {outcome.detail}" if outcome.law else "all laws hold"])
