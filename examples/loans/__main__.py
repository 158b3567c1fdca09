"""`python -m examples.loans`: 1,000 loans of a German bank (german.data, see README.md), four lenders, 40 rounds."""

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from examples.prepare import Data, federate, hold_out, privacy_options
from examples.splits import Indices, even

TEST_SHARE = 0.25
PURPOSE, OUTCOME = 4, 21  # attributes are counted from 1, as in README.md
# The codes of the attributes that are words. Left out: sex, age, dependants and foreign workers, by which borrowers are
# not to be told apart; and the purpose, which here is the lender.
CODES = {
    1: ("A11", "A12", "A13", "A14"),  # balance of the current account
    3: ("A30", "A31", "A32", "A33", "A34"),  # earlier loans
    6: ("A61", "A62", "A63", "A64", "A65"),  # savings
    7: ("A71", "A72", "A73", "A74", "A75"),  # years in the present job
    10: ("A101", "A102", "A103"),  # guarantors
    12: ("A121", "A122", "A123", "A124"),  # property
    14: ("A141", "A142", "A143"),  # instalments owed elsewhere
    15: ("A151", "A152", "A153"),  # housing
    17: ("A171", "A172", "A173", "A174"),  # kind of job
    19: ("A191", "A192"),  # telephone
}
# The attributes that are numbers, and what is 1 of each: constants that all agree on, taken from nobody's data.
UNITS = {2: 24, 5: 5000, 8: 4, 11: 4, 16: 4}  # months, marks, share of income, years at the address, loans here
LENDERS = {
    "household": ("A42", "A43", "A44", "A45"),  # furniture, television, appliances, repairs
    "cars": ("A40", "A41"),
    "business": ("A49", "A410"),
    "education": ("A46", "A48"),  # school, retraining: about 44 loans
}
SPLITS = {
    "purpose": "each of the four lenders grants loans for one purpose: household goods, cars, business, education",
    "even": "loans are dealt out at random: every lender holds a quarter of every kind",
}


def read() -> NDArray[np.str_]:
    """Return the loans, one a row, as they stand in the file: 20 attributes and the outcome."""
    return np.loadtxt(Path(__file__).parent / "german.data", dtype=str)


def encode(loans: NDArray[np.str_]) -> Data:
    """Return one row of unit norm a loan, made of nothing but that loan; its class is 1 if it went bad."""
    words = [(loans[:, [attribute - 1]] == np.array(codes)).astype(float) for attribute, codes in CODES.items()]
    numbers = [loans[:, [attribute - 1]].astype(float) / unit for attribute, unit in UNITS.items()]
    rows = np.hstack(words + numbers)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Data(rows.astype(np.float32), (loans[:, OUTCOME - 1] == "2").astype(np.int64))


def deal(split: str, loans: NDArray[np.str_], random: np.random.Generator) -> list[Indices]:
    """Return each lender's loans."""
    if split == "purpose":
        return [np.flatnonzero(np.isin(loans[:, PURPOSE - 1], purposes)) for purposes in LENDERS.values()]
    return even(loans[:, OUTCOME - 1], len(LENDERS), random)


def lenders(seed: int, split: str = "purpose") -> dict[str, tuple[Data, Data]]:
    """Return each lender's loans: those that it trains on, and a quarter that it holds back."""
    random = np.random.default_rng(seed)
    loans = read()
    data = encode(loans)
    kept = [hold_out(data.part(part), TEST_SHARE, random) for part in deal(split, loans, random)]
    return dict(zip(LENDERS, kept, strict=True))


def dealt(seed: int, split: str = "purpose") -> tuple[dict[str, Data], Data]:
    """Return each client's examples, and those of the test set: what the lenders hold back, taken together."""
    kept = lenders(seed, split)
    held = [test for _, test in kept.values()]
    test = Data(np.concatenate([part.inputs for part in held]), np.concatenate([part.targets for part in held]))
    return {lender: train for lender, (train, _) in kept.items()}, test


@click.command()
@click.option("--split", type=click.Choice(list(SPLITS)), default="purpose", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Fixes the split, the initial weights and the batch order.")
@privacy_options(epsilon=4.0)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/loans"), show_default=True)
def main(split: str, seed: int, epsilon: float | None, out: Path) -> None:
    """Train one model of loans that go bad over four lenders, none of which shows its borrowers."""
    clients, test = dealt(seed, split)
    federate(Path(__file__).parent, out, "loans", seed, epsilon, clients, test, SPLITS[split])


if __name__ == "__main__":
    main()
