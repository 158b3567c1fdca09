"""`python -m examples.digits`: scikit-learn's handwritten digits, ten clients, 40 rounds."""

from pathlib import Path

import click
import numpy as np
from sklearn.datasets import load_digits

from examples.prepare import Data, Labels, federate, hold_out, privacy_options
from examples.splits import Indices, by_class, dirichlet, even

CLIENTS = 10
TEST_SHARE = 0.25
MEAN_INK = 5  # of 16, about what a scanned digit has; a constant that all agree on, taken from nobody's data
SPLITS = {
    "by-class": "each of the ten clients holds five of the ten classes",
    "dirichlet": "each class is shared out unevenly, by a Dirichlet distribution with concentration 0.3",
    "even": "examples are dealt out at random: every client holds all ten classes",
}


def deal(split: str, labels: Labels, random: np.random.Generator) -> list[Indices]:
    """Return each client's examples."""
    if split == "by-class":
        return by_class(labels, CLIENTS, random, classes_each=5)
    if split == "dirichlet":
        return dirichlet(labels, CLIENTS, random, concentration=0.3)
    return even(labels, CLIENTS, random)


def dealt(seed: int, split: str = "by-class") -> tuple[dict[str, Data], Data]:
    """Return each client's examples, and those of the test set."""
    random = np.random.default_rng(seed)
    pixels, labels = load_digits(return_X_y=True)
    centred = pixels - MEAN_INK
    images = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    train, test = hold_out(Data(images.astype(np.float32), labels), TEST_SHARE, random)
    parts = deal(split, train.targets, random)
    return {f"client-{number:02d}": train.part(part) for number, part in enumerate(parts, start=1)}, test


@click.command()
@click.option("--split", type=click.Choice(list(SPLITS)), default="by-class", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Fixes the split, the initial weights and the batch order.")
@privacy_options(epsilon=4.0)
@click.option("--emulators", type=click.Choice(["gcp", "azure"]), help="Across emulated clouds: the parent's.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True)
def main(split: str, seed: int, epsilon: float | None, emulators: str | None, out: Path) -> None:
    """Train one model of handwritten digits over ten clients, none of which shows its data."""
    clients, test = dealt(seed, split)
    federate(Path(__file__).parent, out, "demo", seed, epsilon, clients, test, SPLITS[split], emulators)


if __name__ == "__main__":
    main()
