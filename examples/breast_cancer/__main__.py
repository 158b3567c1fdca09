"""`python -m examples.breast_cancer`: scikit-learn's Wisconsin diagnostic data, five hospitals, 20 rounds."""

from pathlib import Path

import click
import numpy as np
from sklearn.datasets import load_breast_cancer

from examples.prepare import Data, federate, hold_out, privacy_options
from examples.splits import case_mix

REFERENCE_SHARE = 0.15
TEST_SHARE = 0.25
# name → (share of all examples, share of malignant cases among its own): a university clinic sees the hard cases
HOSPITALS = {
    "university": (0.34, 0.65),
    "city": (0.26, 0.35),
    "county": (0.20, 0.20),
    "screening": (0.12, 0.08),
    "hospice": (0.08, 0.90),
}
SPLIT = "five hospitals of different size (34 % to 8 % of the patients) and case mix (8 % to 90 % malignant)"


def dealt(seed: int) -> tuple[dict[str, Data], Data]:
    """Return each hospital's examples, and those of the test set."""
    random = np.random.default_rng(seed)
    measurements, benign = load_breast_cancer(return_X_y=True)
    rest, reference = hold_out(Data(measurements, 1 - benign), REFERENCE_SHARE, random)
    # Everyone scales by what a public reference sample shows: no statistic of anybody's patients is shared for it.
    scaled = (rest.inputs - reference.inputs.mean(axis=0)) / reference.inputs.std(axis=0)
    train, test = hold_out(Data(scaled.astype(np.float32), rest.targets), TEST_SHARE / (1 - REFERENCE_SHARE), random)
    parts = case_mix(train.targets, list(HOSPITALS.values()), random)
    return {name: train.part(part) for name, part in zip(HOSPITALS, parts, strict=True)}, test


@click.command()
@click.option("--seed", default=0, show_default=True, help="Fixes the split, the initial weights and the batch order.")
@privacy_options(epsilon=2.0)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/breast-cancer"), show_default=True)
def main(seed: int, epsilon: float | None, out: Path) -> None:
    """Train one diagnostic model over five hospitals, none of which shows its patients."""
    clients, test = dealt(seed)
    federate(Path(__file__).parent, out, "breast-cancer", seed, epsilon, clients, test, SPLIT)


if __name__ == "__main__":
    main()
