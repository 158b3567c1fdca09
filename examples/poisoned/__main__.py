"""`python -m examples.poisoned`: handwritten digits, ten clients, one of which lies in every round.

The digits are dealt out evenly, and the liar does one of three things: it scales its difference from the global model
by 100, turns its sign, or sends weights that are all the same. Each of them against the weighted mean and against the
robust rules; and the first against `round.max_update_norm`, which keeps it out before any rule sees it. In one process,
with the production handlers; buckets are in memory. `python -m benchmarks.poison` draws what comes of it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from client.checkpoints import Saves
from client.rounds import Learn
from client.update import Learned
from examples.digits.__main__ import dealt as digits
from examples.in_memory import Dealt, Example, deal
from examples.prepare import Data
from exchange import tensors
from exchange.spec import FederationSettings

LIAR = "client-03"
CONSTANT = 1.0  # all of the weights that it sends; honest ones are mostly within ±1
LARGEST_NORM = 3.0  # seed 0: honest differences are between .4 and 1.4, a hundred times them above 50
Weights = Mapping[str, NDArray[np.float64]]
Lie = Callable[[Weights, Weights], Weights]  # (global model, honest difference) → the difference that is sent

LIES: dict[str, Lie | None] = {
    "nobody lies": None,
    "scaled by 100": lambda _, moved: {name: 100 * u for name, u in moved.items()},
    "sign turned": lambda _, moved: {name: -u for name, u in moved.items()},
    "a constant": lambda model, moved: {name: CONSTANT - model[name].astype(np.float64) for name in moved},
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "mean": {"strategy": {"name": "fedavg"}},
    "median": {"strategy": {"name": "median"}},
    "trimmed mean": {"strategy": {"name": "trimmed-mean", "byzantine": 1}},
    "multi-Krum": {"strategy": {"name": "multi-krum", "byzantine": 1}},
    "mean, max_update_norm": {"strategy": {"name": "fedavg"}, "max_update_norm": LARGEST_NORM},
}


def dealt(seed: int) -> tuple[dict[str, Data], Data]:
    """Return each client's examples, and those of the test set."""
    return digits(seed, "even")


EXAMPLE = Example(Path(__file__).parent, dealt)


@dataclass(frozen=True)
class Lying:
    """Local training, and a lie about what came of it."""

    honest: Learn
    lie: Lie

    def __call__(
        self, agreement: Any, settings: FederationSettings, round_: int, model: bytes, plan: Any, saves: Saves, /
    ) -> Learned:
        learned = self.honest(agreement, settings, round_, model, plan, saves)
        return replace(learned, difference=self.lie(tensors.load(model), learned.difference))


def accuracy(found: Dealt, lie: str, strategy: str, rounds: int | None = None) -> float:
    """Return the accuracy of the last model on examples that no client holds.

    Args:
        rounds: in place of the example's own.
    """
    settings = found.settings(None).model_dump()
    asked = STRATEGIES[strategy]
    settings["strategy"] = asked["strategy"]
    settings["round"]["max_update_norm"] = asked.get("max_update_norm")
    settings["rounds"] = rounds or settings["rounds"]
    told = LIES[lie]
    models = found.models(
        FederationSettings.model_validate(settings),
        lambda client, honest: Lying(honest, told) if told and client == LIAR else honest,
    )
    return round(found.accuracy_of(models[-1]), 4)


def measure(seeds: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each lie and strategy: the accuracies by seed, and their mean."""
    with TemporaryDirectory() as folder:
        found = [deal(EXAMPLE, seed, Path(folder) / str(seed)) for seed in range(seeds)]
        for lie in LIES:
            for strategy in STRATEGIES:
                accuracies = [accuracy(each, lie, strategy) for each in found]
                yield {"lie": lie, "strategy": strategy, "mean": round(mean(accuracies), 4), "accuracies": accuracies}


@click.command()
@click.option("--seeds", default=1, show_default=True, help="How many: 0, 1, …")
def main(seeds: int) -> None:
    """Let one of ten clients lie, and print what becomes of the model under each rule."""
    torch.set_num_threads(1)
    for row in measure(seeds):
        click.echo(f"{row['lie']}, {row['strategy']}: {row['mean']:.3f}")


if __name__ == "__main__":
    main()
