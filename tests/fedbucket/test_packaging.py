"""The zips that the clouds run: the same bytes twice, complete, and with every requirement pinned."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from click.testing import CliRunner

from fedbucket.cli import main
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


def test_without_a_task_only_the_parents_zip_is_written(tmp_path: Path) -> None:
    assert [path.name for path in package("gcp", tmp_path, [])] == ["gcp-parent.zip"]


def test_a_task_may_not_take_the_place_of_the_functions_own_file(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    done = CliRunner().invoke(
        main, ["package", "gcp", "--out", str(tmp_path / "dist"), "--task", str(tmp_path / "main.py")]
    )
    assert done.exit_code != 0
    assert "main.py: more than one file of this name" in done.output


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_requirement_of_a_function_is_pinned(function: str) -> None:
    assert (ROOT / function / "requirements.txt").read_text() == needed(function), "python -m tests.requirements"
