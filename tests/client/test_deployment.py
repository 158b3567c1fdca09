"""From client.toml to a client: what it takes, what it refuses, and what is not loaded before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from client.deployment import deployed
from client.device import check_device
from exchange.errors import SettingsError
from exchange.spec import ClientSettings
from tests.support.settings import client_settings, federation_settings
from tests.support.tasks import write_data, write_task

SETTINGS = federation_settings(["alder"], quorum=1)

NOTHING_TO_DO = """
import sys
from pathlib import Path
from client import rounds
from client.deployment import deployed
from exchange.spec import read_client

client = deployed(read_client(Path(sys.argv[1])), Path(), Path(), sys.argv[1])
rounds.sweep(client)
print("torch" in sys.modules)
"""


def own(folder: Path, **changed: object) -> ClientSettings:
    settings = client_settings("alder", SETTINGS, parent=(folder / "parent").as_uri())
    return settings.model_copy(update={"state": (folder / "state").as_uri(), **changed})


def test_a_client_that_finds_nothing_to_do_never_loads_torch(tmp_path: Path):
    (tmp_path / "client.toml").write_text(
        f'id = "alder"\ndata = "own.npz"\nstate = "{(tmp_path / "state").as_uri()}"\n'
        f'[[agreement]]\nfederation = "orchard"\ntask = "task.py"\nparent = "{(tmp_path / "parent").as_uri()}"\n'
    )
    command = [sys.executable, "-c", NOTHING_TO_DO, str(tmp_path / "client.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr


def test_a_deployed_client_trains(tmp_path: Path):
    from aggregator.rounds import start
    from client import rounds
    from client.learn import initial_model
    from exchange import keys
    from exchange.stores import exists, open_store
    from tests.support.tasks import task

    write_task(tmp_path)
    write_data(tmp_path / "own.npz")
    parent = open_store((tmp_path / "parent").as_uri())
    start(parent, SETTINGS, initial_model(task(tmp_path), SETTINGS))
    rounds.sweep(deployed(own(tmp_path, data="own.npz"), tmp_path, tmp_path / "cache", "own.toml"))
    assert exists(parent, str(keys.Update("orchard", "alder", 0)))


def test_without_private_state_nothing_is_deployed(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"own\.toml: 1 mistake\n  state: is missing: a bucket"):
        deployed(own(tmp_path, state=None), tmp_path, tmp_path, "own.toml")


def test_an_agreement_without_a_parent_is_named(tmp_path: Path):
    client = deployed(own(tmp_path), tmp_path, tmp_path, "own.toml")
    agreement = client.settings.agreement[0].model_copy(update={"parent": None})
    with pytest.raises(SettingsError, match="agreement on orchard: parent: is missing"):
        client.open_parent(agreement)


def test_a_function_stops_in_time_and_a_machine_does_not(tmp_path: Path):
    paces = [deployed(own(tmp_path), tmp_path, tmp_path, "own.toml", is_function=each).pace for each in (True, False)]
    assert [(pace.save_every, pace.stop_after) for pace in paces] == [(135, 405), (135, float("inf"))]


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "", "mps:0", "cuda:0 "])
def test_a_device_that_there_is_not_is_refused_by_name(device: str):
    with pytest.raises(SettingsError, match=rf'device: expected "cpu", .*got "{device}"'):
        check_device(device, "own.toml")


def test_a_device_that_torch_lacks_here_is_refused_with_the_fix():
    check_device("cpu", "own.toml")
    if not torch.cuda.is_available():
        with pytest.raises(
            SettingsError, match=r'device: "cuda": torch .* finds 0 CUDA devices here; check the driver'
        ):
            check_device("cuda", "own.toml")
    with pytest.raises(SettingsError, match='device: "cuda:999"'):
        check_device("cuda:999", "own.toml")
    if not torch.backends.mps.is_available():
        with pytest.raises(SettingsError, match=r'device: "mps": torch .* finds no Apple GPU here'):
            check_device("mps", "own.toml")
