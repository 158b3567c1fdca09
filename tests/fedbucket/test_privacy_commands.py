"""`fedbucket privacy`, as a data protection officer reads it: every ε with its unit and δ."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from client.privacy.accounting import GaussianRelease
from client.privacy.ledger import Ledger, Spending
from exchange.spec import read_client, read_federation
from exchange.stores import open_store
from fedbucket.privacy_commands import privacy
from tests.support.private import gaussian_epsilon

CLIENT = """
id = "hospital-a"
data = "rows.csv"
state = "file://{state}"
dataset = "patients"
[budget]
unit = "{unit}"
adjacency = "add-or-remove"
epsilon = 8.0
delta = 1e-5
"""
FEDERATION = """
name = "readmission"
rounds = 30
[round]
quorum = 1
deadline = "2h"
[train]
learning_rate = 0.1
[privacy]
mechanism = "ornstein-uhlenbeck"
unit = "{unit}"
epsilon = 8.0
delta = 1e-5
clip_norm = 1.0
[[client]]
id = "hospital-a"
examples = 1200
"""
Z = 3.28759  # of 30 rounds at ε = 8 and δ = 1e-5
UNIT = "unit: one example, add-or-remove; δ = 1e-05"


def said(*arguments: object, status: int = 0) -> str:
    done = CliRunner().invoke(privacy, [str(argument) for argument in arguments])
    assert done.exit_code == status, done.output
    return done.output


def written(folder: Path, name: str, text: str, unit: str = "example") -> Path:
    path = folder / name
    path.write_text(text.format(state=folder / "state", unit=unit))
    return path


@pytest.fixture
def client(tmp_path: Path) -> Path:
    path = written(tmp_path, "client.toml", CLIENT)
    said("open", path)
    return path


def charge(client: Path, federation: Path, rounds: range, multiplier: float) -> None:
    own, settings = read_client(client), read_federation(federation)
    assert own.state is not None
    assert own.budget is not None
    for number in rounds:
        spending = Spending(settings.name, settings.sha256, number, "test", (GaussianRelease(multiplier),))
        Ledger(open_store(own.state), own.dataset).charge(own.budget, spending)


def test_who_opens_an_account_is_told_what_it_protects_and_that_it_is_for_good(tmp_path: Path):
    client = written(tmp_path, "client.toml", CLIENT)
    first = said("open", client)
    assert "kept for one example (add-or-remove), for good; granted are ε = 8 in all (δ = 1e-05)" in first
    assert "has an account already" in said("open", client, status=1)


def test_the_ledger_says_where_a_federation_would_take_the_account_and_when_that_is_too_far(
    tmp_path: Path, client: Path
):
    federation = written(tmp_path, "federation.toml", FEDERATION)
    lines = said("ledger", client, "--federation", federation).splitlines()
    assert lines == [
        f"data set patients of hospital-a ({UNIT})",
        "  spent    ε = 0.0000 of 8 granted",
        "  one more ε = 1.1491: within the budget",
        "  all 30   ε = 8.0000: within the budget",
    ]
    charge(client, federation, range(2), multiplier=Z)
    lines = said("ledger", client, "--federation", federation).splitlines()
    assert lines[1:3] == [
        f"  spent    ε = {gaussian_epsilon([Z] * 2):.4f} of 8 granted",
        "           2 rounds of readmission",
    ]
    assert lines[4] == "  all 28   ε = 8.0000: within the budget"
    other = written(tmp_path, "other.toml", FEDERATION.replace("readmission", "triage"))
    lines = said("ledger", client, "--federation", other).splitlines()
    assert lines[3].endswith("within the budget")
    assert lines[4] == f"  all 30   ε = {gaussian_epsilon([Z] * 32):.4f}: beyond the budget: the client would withdraw"
    found = json.loads(said("ledger", client, "--federation", other, "--json"))
    assert found["rounds_left"] == 30
    assert found["epsilon_with_one_more_round"] < found["epsilon_budget"] < found["epsilon_with_all_rounds"]


def test_what_protects_a_client_is_never_added_to_what_protects_an_example(tmp_path: Path, client: Path):
    federation = written(tmp_path, "federation.toml", FEDERATION, unit="client")
    refused = said("ledger", client, "--federation", federation, status=1)
    assert "kept for unit example (add-or-remove), the federation readmission is for unit client" in refused
    other = written(tmp_path, "other.toml", CLIENT, unit="client")
    assert "kept for unit example (add-or-remove), the budget is for unit client" in said("ledger", other, status=1)


def test_a_delta_under_which_a_row_could_be_published_is_warned_of():
    command = ["calibrate", "--unit", "example", "--examples", 1000, "--learning-rate", 0.1, "--clip-norm", 1]
    command += ["--epsilon", 4, "--rounds", 3, "--delta"]
    assert "warning: δ is not below 1/1000" in said(*command, 1e-3)
    assert "warning" not in said(*command, 1e-4)
