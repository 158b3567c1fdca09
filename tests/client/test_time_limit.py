"""A function of five seconds and a training of eight: real processes, one after the other, one of them killed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aggregator import rounds as parent_rounds
from aggregator.rounds import Parent
from client.checkpoints import UNSAVED
from client.learn import LocalTraining, initial_model
from client.update import update_file
from exchange import keys
from exchange.stores import exists, open_store
from tests.client.invocation import PAUSED
from tests.support.settings import client_settings, federation_settings
from tests.support.tasks import task, write_data, write_task

LIMIT = 5
SECONDS_A_STEP = 0.1
STEPS = 80
PATIENCE = 120  # seconds; only a test that is broken waits so long
SETTINGS = federation_settings(
    ["alder"], quorum=1, train={"learning_rate": 0.1, "local_epochs": STEPS // 4, "batch_size": 3, "momentum": 0.9}
)
SLOW = """
    import os, time

    def loss(output, target):
        time.sleep(float(os.environ.get("SECONDS_A_STEP", "0")))
        return torch.nn.functional.cross_entropy(output, target)
"""


@contextmanager
def invocation(toml: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.client.invocation", str(toml)]
    with subprocess.Popen(command, env={**os.environ, "SECONDS_A_STEP": str(SECONDS_A_STEP)}) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_training_that_outlives_the_time_limit_comes_to_the_bytes_of_one_that_has_all_the_time(tmp_path: Path):
    write_task(tmp_path, SLOW)
    write_data(tmp_path / "own.npz")
    parent, inbox, state = (open_store((tmp_path / name).as_uri()) for name in ("parent", "inbox", "state"))
    own = client_settings("alder", SETTINGS).model_copy(update={"data": "own.npz"})
    toml = tmp_path / "client.toml"
    toml.write_text(
        f'id = "alder"\ndata = "own.npz"\nstate = "{state.url}"\ninbox = "{inbox.url}"\ntime_limit = {LIMIT}\n'
        f'[[agreement]]\nfederation = "orchard"\ntask = "task.py"\nparent = "{parent.url}"\n'
        f'settings_sha256 = "{SETTINGS.sha256}"\n'
    )
    model = initial_model(task(tmp_path, SLOW), SETTINGS)
    parent_rounds.start(parent, SETTINGS, model)
    parent_rounds.publish(Parent(parent, lambda _: inbox, time_limit=LIMIT), "orchard", 0)
    update = str(keys.Update("orchard", "alder", 0))

    with invocation(toml) as process:  # killed, as a machine is that goes away
        until = time.monotonic() + PATIENCE
        while not any(state.list(keys.checkpoints("orchard", 0))):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    statuses = []
    while not exists(parent, update):
        with invocation(toml) as process:
            statuses.append(process.wait(PATIENCE))
        assert statuses[-1] in (0, PAUSED)
    assert statuses[-1] == 0
    assert PAUSED in statuses

    learn = LocalTraining(own, tmp_path, no_noise, no_noise)
    learned = learn(own.agreement[0], SETTINGS, 0, model, None, UNSAVED)
    assert parent.read(update) == update_file("alder", no_noise, None, "orchard", 0, model, learned)


def no_noise(count: int) -> object:
    raise AssertionError(f"{count} draws of noise in a training without privacy")
