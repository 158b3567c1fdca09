"""The zips that the clouds run: the same bytes twice, complete, and with every requirement pinned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from click.testing import CliRunner

from aggregator.rounds import start
from client.privacy.ledger import Ledger
from exchange import keys, tensors
from exchange.errors import SettingsError
from exchange.records import Withdrawal
from exchange.spec import FederationSettings, validate
from exchange.stores import exists
from exchange.stores.file import FileStore
from fedbucket.cli import main
from fedbucket.emulators.calls import Caller, Request
from fedbucket.emulators.hosts import azure_function, gcp_function
from fedbucket.packaging import package
from tests.requirements import FUNCTIONS, ROOT, needed

TASK = ROOT / "examples/digits/task.py"
ENTRY = {"gcp": "main", "azure": "function_app"}
CLOUDS = pytest.mark.parametrize("cloud", ENTRY)

LOOK = """
import sys, {entry}
{entry}.side  # what an event would open
import {below}.deployment
house = [module for name, module in sys.modules.items() if name.partition(".")[0] in
         ("exchange", "aggregator", "client", "fedbucket", "{entry}")]
print(sorted({{module.__file__ for module in house if not module.__file__.startswith(sys.argv[1])}}))
print("torch" in sys.modules, "fedbucket" in sys.modules)
"""


def unpacked(cloud: str, side: str, folder: Path) -> Path:
    written = package(cloud, folder, [TASK])
    (zip_,) = (path for path in written if path.name == f"{cloud}-{side}.zip")
    with ZipFile(zip_) as content:
        content.extractall(folder / side)
    return folder / side


@CLOUDS
def test_the_same_source_gives_the_same_bytes(cloud: str, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in package(cloud, tmp_path / "one", [TASK])]
    os.utime(TASK)  # a new checkout has other times
    second = [path.read_bytes() for path in package(cloud, tmp_path / "two", [TASK])]
    assert first == second
    assert len(first) == 2


@CLOUDS
def test_a_zip_holds_its_side_and_nothing_of_the_other(cloud: str, tmp_path: Path) -> None:
    names = {}
    for path in package(cloud, tmp_path, [TASK]):
        with ZipFile(path) as content:
            names[path.stem.rpartition("-")[2]] = set(content.namelist())
    for side in names.values():
        assert {f"{ENTRY[cloud]}.py", "requirements.txt", "exchange/keys.py", "exchange/stores/gcs.py"} <= side
        assert not [name for name in side if "__pycache__" in name or name.startswith("fedbucket")]
    assert "aggregator/rounds.py" in names["parent"]
    assert {"client/rounds.py", "client/privacy/ledger.py", "task.py"} <= names["client"]
    assert not [name for name in names["parent"] if name.startswith(("client/", "task"))]
    assert not [name for name in names["client"] if name.startswith("aggregator/")]


@pytest.mark.parametrize("side", ["parent", "client"])
@CLOUDS
def test_an_unpacked_zip_starts_from_its_own_source_and_without_torch(cloud: str, side: str, tmp_path: Path) -> None:
    folder = unpacked(cloud, side, tmp_path)
    code = LOOK.format(entry=ENTRY[cloud], below="aggregator" if side == "parent" else "client")
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "False False"]


@pytest.mark.parametrize("side", ["parent", "client"])
def test_azures_host_is_told_where_the_queues_trigger_comes_from(side: str, tmp_path: Path) -> None:
    host = json.loads((unpacked("azure", side, tmp_path) / "host.json").read_text())
    # Without a bundle of extensions a host that is not .NET's knows HTTP and timers only.
    assert host["extensionBundle"]["id"] == "Microsoft.Azure.Functions.ExtensionBundle"
    assert host["extensionBundle"]["version"].startswith("[4.")


def test_without_a_task_only_the_parents_zip_is_written(tmp_path: Path) -> None:
    assert [path.name for path in package("gcp", tmp_path, [])] == ["gcp-parent.zip"]


def test_a_task_may_not_take_the_place_of_the_functions_own_file(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    done = CliRunner().invoke(
        main, ["package", "gcp", "--out", str(tmp_path / "dist"), "--task", str(tmp_path / "main.py")]
    )
    assert done.exit_code != 0
    assert "main.py: more than one file of this name" in done.output
    assert not (tmp_path / "dist").exists()


def test_a_task_is_a_python_module(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text("")
    with pytest.raises(SettingsError, match="expected a task, which is a Python module"):
        package("gcp", tmp_path / "dist", [tmp_path / "task.toml"])
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_requirement_of_a_function_is_pinned(function: str) -> None:
    assert (ROOT / function / "requirements.txt").read_text() == needed(function), "python -m tests.requirements"


# In an environment of their own, with nothing but what their requirements.txt names.

ENGINE = ("azure-functions-runtime", "azurefunctions-extensions-base")  # what Azure brings itself
OTHERS = ("3.12", "3.13")  # the other Pythons that the clouds run


def interpreter(version: str) -> Path:
    """Find a Python of this version, or skip."""
    on_path = map(Path, os.environ.get("PATH", "").split(os.pathsep))
    for place in [*on_path, *Path.home().glob(f".pyenv/versions/{version}*/bin")]:
        found = place / f"python{version}"
        if found.exists() and ".pyenv/shims" not in str(found):
            return found
    pytest.skip(f"no Python {version} on this machine")


def environment(python: Path, folder: Path, requirements: Path, cloud: str) -> Path:
    """Make an environment; return its interpreter."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", requirements], check=True)
    if cloud == "azure":
        constraint = ["--constraint", ROOT / "constraints.txt"]
        subprocess.run([*pip, "--no-deps", "--ignore-requires-python", *constraint, *ENGINE], check=True)
    return folder / "bin/python"


def swept(cloud: str, folder: Path, variables: Mapping[str, str], python: Path, log: Path) -> str:
    """Start an unpacked package in its host, fire its timer, and return what it logged."""
    settings = {**variables, "FEDBUCKET_QUEUE": "objects", "FEDBUCKET_TIMER": "0 */5 * * * *", "PYTHONPATH": ""}
    if cloud == "gcp":
        running, path = gcp_function(folder, "on_timer", settings, log, python=python), "/"
    else:
        running, path = azure_function(folder, settings, log, python=python), "/admin/functions/on_timer"
    with running as host:
        status, failed = Caller().post(host, Request(path, {"Content-Type": "application/json"}, {}, timeout=300))
    assert failed is None, (status, log.read_text())
    return log.read_text()


def begun(folder: Path) -> tuple[FileStore, FederationSettings]:
    """A federation of one client, whose first round is open."""
    privacy = {"mechanism": "ornstein-uhlenbeck", "unit": "example", "epsilon": 4.0, "delta": 1e-5, "clip_norm": 1.0}
    content = {
        "name": "trial",
        "rounds": 2,
        "round": {"quorum": 1, "deadline": 600},
        "train": {"learning_rate": 1.0},
        "privacy": privacy,
        "client": [{"id": "hospital-a", "examples": 20}],
    }
    settings = validate(FederationSettings, content, "settings")
    parent = FileStore(folder)
    weights = {"weight": np.zeros((10, 64), np.float32)}
    start(parent, settings, tensors.dump(weights, {"federation": "trial", "round": "0"}))
    return parent, settings


@pytest.mark.slow
@pytest.mark.parametrize("version", [f"{sys.version_info.major}.{sys.version_info.minor}", *OTHERS])
@CLOUDS
def test_the_parents_package_runs_with_its_own_requirements_alone(cloud: str, version: str, tmp_path: Path) -> None:
    folder = unpacked(cloud, "parent", tmp_path)
    python = environment(interpreter(version), tmp_path / "venv", folder / "requirements.txt", cloud)
    parent, _ = begun(tmp_path / "bucket")
    withdrawal = Withdrawal(federation="trial", round=0, client="hospital-a")
    parent.create(str(keys.Update("trial", "hospital-a", 0, withdrawn=True)), withdrawal.to_bytes())
    said = swept(cloud, folder, {"FEDBUCKET_PARENT": f'bucket = "{parent.url}"'}, python, tmp_path / "log")
    assert '"sweep done"' in said
    assert exists(parent, str(keys.Model("trial", 1)))
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert missing.returncode != 0, "the parent's requirements bring torch"


@pytest.mark.slow
@CLOUDS
def test_the_clients_package_trains_with_its_own_requirements_alone(cloud: str, tmp_path: Path) -> None:
    folder = unpacked(cloud, "client", tmp_path)
    python = environment(Path(sys.executable), tmp_path / "venv", folder / "requirements.txt", cloud)
    parent, settings = begun(tmp_path / "bucket")
    np.savez(tmp_path / "data.npz", train_inputs=np.ones((20, 64), np.float32), train_targets=np.arange(20) % 10)
    state = FileStore(tmp_path / "state")
    Ledger(state, "data").open("example", "add-or-remove", bytes(32))
    own = f"""
        id = "hospital-a"
        data = "{tmp_path / "data.npz"}"
        state = "{state.url}"
        [budget]
        unit = "example"
        adjacency = "add-or-remove"
        epsilon = 4.0
        delta = 1e-5
        [[agreement]]
        federation = "trial"
        task = "task.py"
        parent = "{parent.url}"
        settings_sha256 = "{settings.sha256}"
        mechanisms = ["ornstein-uhlenbeck"]
        max_epsilon = 4.0
    """
    said = swept(cloud, folder, {"FEDBUCKET_CLIENT": own}, python, tmp_path / "log")
    assert '"sweep done"' in said
    assert exists(parent, str(keys.Update("trial", "hospital-a", 0)))
