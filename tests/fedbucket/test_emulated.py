"""One federation across two emulated clouds and a client's own machine: the very model of a run in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from exchange import keys
from exchange.errors import RunStopped
from fedbucket import emulators
from fedbucket.cli import main
from fedbucket.emulated import results
from fedbucket.emulated.run import run_emulated
from fedbucket.local.folder import RunFolder
from fedbucket.local.journal import read_rounds
from fedbucket.scaffold import new_federation

needs_azurite = pytest.mark.skipif(emulators.find_azurite() is None, reason="Azurite is not installed: make azurite")


def federation(folder: Path, rounds: int) -> Path:
    """Three hospitals, without noise and without baselines: one in each place."""
    new_federation(folder / "trial")
    settings, local = folder / "trial" / "federation.toml", folder / "trial" / "local.toml"
    settings.write_text(settings.read_text().replace("rounds = 20", f"rounds = {rounds}"))
    local.write_text("baselines = false\n" + local.read_text())
    return settings


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


@needs_azurite
@pytest.mark.parametrize(
    ("parent", "chaos"), [("gcp", None), pytest.param("azure", 5, marks=pytest.mark.slow)], ids=["gcp", "azure-chaos"]
)
def test_a_federation_across_clouds_makes_the_very_model_of_a_run_in_one_process(
    parent: Any, chaos: int | None, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    folder, summary = run_emulated(federation(tmp_path, rounds=2), parent, out, chaos=chaos)
    assert summary["same_model_as_embedded"] is True
    assert summary["emulated"] == {
        "parent": parent,
        "clients": {"hospital-a": "gcp", "hospital-b": "azure", "hospital-c": "own hardware"},
    }
    assert summary["federated_accuracy"] == summary["embedded_accuracy"]
    assert len(summary["last_upload_to_model_seconds"]) == 2
    assert json.loads((out / "summary.json").read_text()) == summary
    assert folder.report.read_text().startswith("<!doctype html>")
    # Every step of the functions is in their logs, and so in rounds.jsonl.
    for line in read_rounds(folder.rounds):
        assert len(line["cohort"]) == 3
        assert {step for step, *_ in line["spans"]} >= {"publish", "train", "record", "aggregate"}
    # What is kept of the buckets is a run like any other.
    assert "2 rounds, 0 bad" in run("verify", str(out)).output
    assert "finished after 2 rounds" in run("status", str(out)).output
    # Tickets went to those with an inbox; the client without one saw the model by itself.
    tickets = {client: list(folder.inbox(client).list("")) for client in summary["clients"]}
    assert {client for client, found in tickets.items() if found} == {"hospital-a", "hospital-b"}
    assert not [info.key for info in folder.parent.list("") if keys.parse(info.key) is None]


def test_a_run_of_another_kind_is_not_removed(tmp_path: Path) -> None:
    settings = federation(tmp_path, rounds=1)
    (tmp_path / "run" / "buckets").mkdir(parents=True)
    with pytest.raises(RunStopped, match="another folder with --out"):
        run_emulated(settings, "gcp", tmp_path / "run")
    assert (tmp_path / "run" / "buckets").exists()


def test_the_wait_for_a_model_begins_with_the_last_upload() -> None:
    created = {
        "trial/public/models/000000.safetensors": 1.0,
        "trial/updates/a/000000.safetensors": 2.0,
        "trial/updates/b/000000.withdrawn.json": 3.0,
        "trial/rounds/000000/receipts/a.json": 3.5,
        "trial/public/models/000001.safetensors": 4.25,
        "trial/updates/a/000001.safetensors": 5.0,
    }
    assert results.seconds_to_model(created, "trial") == [1.25]


def test_steps_are_taken_from_whole_objects_in_the_functions_log_also_from_two_in_one_line(tmp_path: Path) -> None:
    logs = RunFolder(tmp_path).path / "logs"
    logs.mkdir()
    done = {"step": "record", "outcome": "done", "round": 0}
    other = {**done, "round": 1}
    (logs / "parent.log").write_text(f'[INFO] booting\n{json.dumps(done)}{json.dumps(other)}\n\n{{"step": "rec')
    assert list(results.read_log(logs)) == [done, other]
