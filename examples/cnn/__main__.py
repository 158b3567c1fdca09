"""`python -m examples.cnn`: handwritten digits as images, ten clients, a small convolutional network."""

from pathlib import Path

import click
import numpy as np
from sklearn.datasets import load_digits

from examples.prepare import Data, federate, hold_out, privacy_options
from examples.splits import by_class

CLIENTS = 10
TEST_SHARE = 0.25
MEAN_INK, INK_SPREAD = 5, 8  # of 16; constants that all agree on, taken from nobody's data


def dealt(seed: int) -> tuple[dict[str, Data], Data]:
    """Return each client's examples, and those of the test set."""
    random = np.random.default_rng(seed)
    digits = load_digits()
    images = ((digits.images[:, None] - MEAN_INK) / INK_SPREAD).astype(np.float32)
    train, test = hold_out(Data(images, digits.target), TEST_SHARE, random)
    parts = by_class(train.targets, CLIENTS, random, classes_each=5)
    return {f"client-{number:02d}": train.part(part) for number, part in enumerate(parts, start=1)}, test


@click.command()
@click.option("--seed", default=0, show_default=True, help="Fixes the split, the initial weights and the batch order.")
@privacy_options(epsilon=8.0)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/cnn"), show_default=True)
def main(seed: int, epsilon: float | None, out: Path) -> None:
    """Train a convolutional network on images of digits over ten clients."""
    clients, test = dealt(seed)
    federate(
        Path(__file__).parent,
        out,
        "cnn",
        seed,
        epsilon,
        clients,
        test,
        "each of the ten clients holds five of the ten classes",
    )


if __name__ == "__main__":
    main()
