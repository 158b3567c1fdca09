"""The command line of the simulation."""

import argparse
import json
import secrets
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests.simulation import campaign, small_worlds
from tests.simulation.campaign import Tally
from tests.simulation.schedule import Outcome, in_words, run, shrink


def main() -> int:
    """Run what was asked for; return 0 if all laws hold and all mutants are found."""
    options = _options()
    if options.seed is not None:
        return _replay(options)
    if options.small_worlds:
        return _explore()
    seed = options.first_seed if options.first_seed is not None else secrets.randbelow(2**40)
    print(f"{options.schedules} schedules from seed {seed}", flush=True)
    began = time.monotonic()
    tally = campaign.run_all(range(seed, seed + options.schedules), options.workers)
    print(
        f"{tally.store_calls} store calls, {tally.crashes} crashes, {len(tally.seeds_of_failures)} failures", flush=True
    )
    found = {} if options.no_mutants else campaign.hunt_all(seed, options.workers)
    _report(tally, found)
    if options.json:
        options.json.write_text(json.dumps(_json(tally, found, seed, time.monotonic() - began), indent=2) + "\n")
    return int(bool(tally.seeds_of_failures) or None in found.values())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--first-seed", type=int, help="of the first schedule (default: a fresh one, which is printed)")
    parser.add_argument("--json", type=Path, help="where to write the outcome")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    parser.add_argument("--no-mutants", action="store_true", help="leave out the search for mutants")
    parser.add_argument("--seed", type=int, help="run this one schedule and tell it in words; shrink it if it fails")
    parser.add_argument("--small-worlds", action="store_true", help="visit every state of all small races instead")
    parser.add_argument("--mutant", help="with --seed: break the code so, by the mutant's name")
    return parser.parse_args()


def _replay(options: argparse.Namespace) -> int:
    with ExitStack() as stack:
        stack.enter_context(campaign.hushed())
        if options.mutant:
            stack.enter_context(campaign.called(options.mutant).applied())
        outcome = run(options.seed)
        print(in_words(outcome))
        if outcome.law:
            _tell_shrunk(outcome)
    return int(outcome.law is not None)


def _explore() -> int:
    with campaign.hushed():
        for race in small_worlds.races():
            found = small_worlds.explore(race)
            print(f"{found.states:6} states, {found.ends:5} ends: {race.name}", flush=True)
    return 0


def _tell_shrunk(outcome: Outcome) -> None:
    smallest = shrink(outcome)
    print(f"\nThe same law is broken by {len(smallest.departures)} of these {len(outcome.departures)} departures:\n")
    print(in_words(smallest))


def _report(tally: Tally, found: dict[str, int | None]) -> None:
    if tally.seeds_of_failures:
        with campaign.hushed():
            _tell_shrunk(run(tally.seeds_of_failures[0]))
        print(f"\nfailed: {tally.seeds_of_failures}; each again: python -m tests.simulation --seed N")
    for name, seed in found.items():
        print(f"  {'NOT FOUND' if seed is None else f'found by seed {seed}'}: {name}")


def _json(tally: Tally, found: dict[str, int | None], seed: int, seconds: float) -> dict[str, object]:
    return {
        "schedules": tally.schedules,
        "store_calls": tally.store_calls,
        "crashes": tally.crashes,
        "duplicates": tally.duplicates,
        "failures": len(tally.seeds_of_failures),
        "seeds_of_failures": tally.seeds_of_failures,
        "mutants": {"tried": len(found), "found": sum(at is not None for at in found.values())},
        "schedules_until_found": {name: None if at is None else at - seed + 1 for name, at in found.items()},
        "first_seed": seed,
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
