"""`start`, `prune` and `report` as the owner of a parent bucket meets them: each a program of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exchange import tensors
from exchange.stores.file import FileStore
from tests.fedbucket.test_cli import fedbucket, new_federation
from tests.support.buckets import contents
from tests.support.federation import Federation

NOISY = """mechanism = "ornstein-uhlenbeck"
unit = "client"
epsilon = 8.0
delta = 1e-5
clip_norm = 1.0
"""


def begin(folder: Path, bucket: str, *options: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    url = (folder / bucket).as_uri()
    return fedbucket("start", "clinic/federation.toml", "--parent", url, *options, cwd=folder, status=status)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a federation in clinic/ that was begun in bucket/, from its task."""
    folder = tmp_path_factory.mktemp("owner")
    new_federation(folder)
    begin(folder, "bucket", "--task", "clinic/task.py")
    return folder


def first_model(folder: Path) -> Path:
    return folder / "bucket/clinic/public/models/000000.safetensors"


# Start.


def test_a_federation_is_begun_from_its_task_and_the_same_command_again_changes_nothing(folder: Path) -> None:
    bucket = FileStore(folder / "bucket")
    before = contents(bucket)
    assert list(before) == ["clinic/public/federation.json", "clinic/public/models/000000.safetensors"]
    done = begin(folder, "bucket", "--task", "clinic/task.py")
    assert contents(bucket) == before
    for key in before:
        assert f"{bucket.url}/{key}" in done.stdout
    pinned = fedbucket("settings", "clinic/federation.toml", cwd=folder).stderr.strip()
    assert f'settings_sha256 = "{pinned}"' in done.stdout
    assert "round 0 (1/4)" in fedbucket("status", bucket.url, cwd=folder).stdout


def test_another_federation_of_that_name_is_refused_and_left_as_it_is(folder: Path) -> None:
    before = contents(FileStore(folder / "bucket"))
    weights = folder / "weights.safetensors"
    weights.write_bytes(tensors.dump({"weight": np.zeros(3)}, {}))
    said = begin(folder, "bucket", "--init", weights, status=1).stderr
    assert "another first model" in said
    assert "give this one another name" in said
    federation = folder / "clinic" / "federation.toml"
    text = federation.read_text()
    federation.write_text(text.replace("learning_rate = 0.5", "learning_rate = 0.25"))
    assert "other settings" in begin(folder, "bucket", "--init", first_model(folder), status=1).stderr
    federation.write_text(text)
    assert contents(FileStore(folder / "bucket")) == before


def test_given_weights_are_published_without_torch(folder: Path) -> None:
    given = first_model(folder)
    arguments = ["start", "clinic/federation.toml", "--parent", (folder / "given").as_uri(), "--init", str(given)]
    program = (
        f"import sys; from fedbucket.cli import main; main({arguments}, standalone_mode=False); print(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert "fedbucket.starting" in done.stdout
    assert "'torch'" not in done.stdout
    assert (folder / "given/clinic/public/models/000000.safetensors").read_bytes() == given.read_bytes()


def test_before_anything_is_created_the_noise_is_told_and_an_unreachable_tolerance_refused(
    folder: Path, tmp_path: Path
) -> None:
    federation = new_federation(tmp_path, **{'mechanism = "none"': NOISY + "#"})
    init = ("--init", first_model(folder))
    assert "has an L2 norm of about" in begin(tmp_path, "noisy", *init).stdout
    federation.write_text(federation.read_text() + "\n[stop]\ntolerance = 1e-9\n")
    assert "stop.tolerance: expected at least" in begin(tmp_path, "bucket", *init, status=1).stderr
    assert not (tmp_path / "bucket").exists()


def test_where_to_start_from_is_said_once(folder: Path) -> None:
    for options in ((), ("--task", "clinic/task.py", "--init", "clinic/task.py")):
        assert "either --task" in begin(folder, "nothing", *options, status=2).stderr
    said = begin(folder, "nothing", "--init", "clinic/task.py", status=1).stderr
    assert "expected a safetensors file to start from" in said
    assert not (folder / "nothing").exists()


# Prune and report.


@pytest.fixture
def finished(tmp_path: Path) -> FileStore:
    """The parent bucket of a federation of three rounds."""
    bucket = FileStore(tmp_path / "bucket")
    for key, data in contents(Federation().run().parent_bucket).items():
        bucket.create(key, data)
    return bucket


def test_pruning_shows_what_it_would_remove_and_asks(finished: FileStore, tmp_path: Path) -> None:
    before = contents(finished)
    command = ("prune", finished.url, "--federation", "orchard", "--before", 2)
    sizes = [len(data) for key, data in before.items() if "/updates/" in key and "/000002." not in key]
    done = fedbucket(*command, cwd=tmp_path, status=1)  # nobody is there to answer
    assert f"6 updates ({sum(sizes) / 1000:.2f}\N{NO-BREAK SPACE}kB) of rounds 0–1 of orchard" in done.stdout
    assert contents(finished) == before
    fedbucket(*command, "--yes", cwd=tmp_path)
    found = json.loads(fedbucket("verify", finished.url, "--json", cwd=tmp_path).stdout)
    assert [row["verdict"] for row in found["rounds"]] == ["pruned", "pruned", "good"]
    assert (found["bad"], found["pruned"]) == (0, 2)
    assert "3 rounds, 0 bad, 2 pruned" in fedbucket("verify", finished.url, cwd=tmp_path).stdout
    assert "nothing to remove" in fedbucket(*command, "--yes", cwd=tmp_path).stdout


def test_pruning_names_its_federation(finished: FileStore, tmp_path: Path) -> None:
    assert "--federation" in fedbucket("prune", finished.url, "--before", 2, cwd=tmp_path, status=2).stderr
    other = ("prune", finished.url, "--federation", "other", "--before", 2, "--yes")
    assert "expected other" in fedbucket(*other, cwd=tmp_path, status=1).stderr


def test_a_bucket_is_reported_on_by_its_url(finished: FileStore, tmp_path: Path) -> None:
    assert "--out" in fedbucket("report", finished.url, cwd=tmp_path, status=2).stderr
    fedbucket("report", finished.url, "--federation", "orchard", "--out", "page.html", cwd=tmp_path)
    assert "The parent’s bucket alone" in (tmp_path / "page.html").read_text()
    found = json.loads(fedbucket("report", finished.url, "--json", cwd=tmp_path).stdout)
    assert (found["summary"]["name"], len(found["rounds"])) == ("orchard", 3)
