"""checkov, in an environment of its own: its dependencies are many, and pinned to versions that are not ours."""

import json
import subprocess
import venv
from pathlib import Path

import pytest

from tests.infra.terraform import INFRA

CHECKOV = "checkov==3.3.30"


@pytest.fixture(scope="module")
def checkov(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("checkov")
    venv.create(home, with_pip=True)
    command = [home / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", CHECKOV]
    subprocess.run(command, check=True, timeout=600)
    return home / "bin" / "checkov"


@pytest.mark.slow
def test_checkov_finds_nothing_and_every_skip_is_needed_and_has_its_reason(checkov: Path):
    command = [checkov, "-d", INFRA, "--framework", "terraform", "-o", "json", "--skip-download"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    report = json.loads(done.stdout)
    found = [f"{each['check_id']} {each['resource']}" for each in report["results"]["failed_checks"]]
    assert found == []
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["resource_count"] > 100
    used = {each["check_id"] for each in report["results"]["skipped_checks"]}
    written = [
        line for path in INFRA.rglob("*.tf") for line in path.read_text().splitlines() if "checkov:skip=" in line
    ]
    reasons = dict(line.partition("checkov:skip=")[2].split(": ", 1) for line in written)
    assert used == reasons.keys()
    assert all(len(reason) > 20 for reason in reasons.values())
