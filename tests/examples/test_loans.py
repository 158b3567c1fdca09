"""The loans: what is made of the file, who holds what, and the figures in the example's own README."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.loans import WAYS, measure, table
from examples.loans import __main__ as loans

FOLDER = Path(str(loans.__file__)).parent
README = (FOLDER / "README.md").read_text(encoding="utf-8")
LEFT_OUT = {"purpose": 4, "sex": 9, "age": 13, "dependants": 18, "foreign worker": 20}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the benchmark trains: on a busy machine, threads that wait for each other are many times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows_of(data: loans.Data) -> list[bytes]:
    return [row.tobytes() for row in data.inputs]


def test_the_file_is_the_one_that_the_readme_describes() -> None:
    content = (FOLDER / "german.data").read_bytes()
    assert hashlib.sha256(content).hexdigest() in README
    assert loans.read().shape == (1000, 21)
    assert loans.encode(loans.read()).targets.sum() == 300


def test_every_loan_has_one_known_code_of_every_attribute() -> None:
    codes = loans.encode(loans.read()).inputs[:, : sum(map(len, loans.CODES.values()))] > 0
    assert set(codes.sum(axis=1)) == {len(loans.CODES)}


def test_a_row_depends_on_no_other_loan() -> None:
    every = loans.read()
    assert np.array_equal(loans.encode(every[7:8]).inputs[0], loans.encode(every).inputs[7])


@pytest.mark.parametrize("attribute", LEFT_OUT)
def test_borrowers_are_not_told_apart_by(attribute: str) -> None:
    every = loans.read()
    others = every.copy()
    others[:, LEFT_OUT[attribute] - 1] = np.roll(every[:, LEFT_OUT[attribute] - 1], 1)
    assert not np.array_equal(others, every)
    assert np.array_equal(loans.encode(others).inputs, loans.encode(every).inputs)


@pytest.mark.parametrize("split", loans.SPLITS)
def test_each_loan_is_one_lenders_or_in_the_test_set(split: str) -> None:
    clients, test = loans.dealt(0, split)
    dealt = [row for part in (*clients.values(), test) for row in rows_of(part)]
    assert sorted(dealt) == sorted(rows_of(loans.encode(loans.read())))
    assert len(test) == pytest.approx(250, abs=2)


def test_one_lender_has_few_loans() -> None:
    sizes = {lender: len(part) for lender, part in loans.dealt(0)[0].items()}
    assert sizes == {"household": 371, "cars": 253, "business": 82, "education": 44}


@pytest.mark.usefixtures("one_thread")
def test_a_lender_with_few_loans_learns_more_together_than_alone() -> None:
    found = list(measure("purpose", 1, rounds=5))
    rows = table([*found, *found], seeds=2)
    assert [(row["lender"], row["on"], row["of"]) for row in rows] == [
        (lender, on, metric) for lender in loans.LENDERS for on in ("all", "own") for metric in ("auc", "accuracy")
    ]
    assert all(0 <= row[way] <= 1 for row in rows for way in WAYS)
    (few,) = (row for row in rows if (row["lender"], row["on"], row["of"]) == ("education", "all", "auc"))
    assert few["together"] > few["alone"] + 0.05


def test_the_figures_in_the_readme_are_those_that_were_measured() -> None:
    (shown,) = re.findall(r"<!-- gains -->\n(.*?)\n<!-- /gains -->", README, re.DOTALL)
    found = json.loads((FOLDER / "gains.json").read_text(encoding="utf-8"))["rows"]
    for row in found:
        if (row["split"], row["of"]) == ("purpose", "auc"):
            means = " | ".join(f"{row[way]:.3f}".removeprefix("0") for way in WAYS)
            assert f"| {row['lender']} | {row['trained']} | {row['on']} | {means} |" in shown
