"""`make soak MINUTES=10`: one disturbed run after the other, each with the next seed, until the time is up.

Prints a JSON object for each: its seed, what was done to it, and what is wrong. A seed draws the same disturbances
again (`--seed 7 --minutes 0` runs it once); what the processes were at when they were killed is the machine's affair.
Exit status 1 at the first run with another model than undisturbed; its folder, with all logs, is left.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from itertools import count
from pathlib import Path

import click

from tests.soak.run import disturbed, undisturbed


@click.command()
@click.option("--minutes", default=10.0, show_default=True, help="No run begins later; one is always made.")
@click.option("--seed", type=int, help="Of the first run; drawn if not given.")
@click.option("--rounds", default=10, show_default=True)
def main(minutes: float, seed: int | None, rounds: int) -> None:
    """Kill, stall and cut off the parts of a federation, and hold its models to those of an undisturbed run."""
    until = time.monotonic() + 60 * minutes
    first = seed if seed is not None else int.from_bytes(os.urandom(3))
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    expected = undisturbed(folder, rounds)
    for number in count(first):
        result = disturbed(expected, folder / str(number), "gcp" if number % 2 else "azure", number)
        click.echo(json.dumps(result))
        if result["wrong"]:
            click.echo(f"the logs are in {folder / str(number)}", err=True)
            raise SystemExit(1)
        shutil.rmtree(folder / str(number))
        if time.monotonic() >= until:
            break
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
