"""`fedbucket client run`, as real processes: taking part from a machine of one's own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import boto3
import pytest

from aggregator import rounds as parent_rounds
from aggregator.rounds import Parent
from client import rounds as client_rounds
from client.checkpoints import Pace
from client.learn import LocalTraining, initial_model
from client.rounds import Client
from client.update import Learned
from exchange import keys
from exchange.errors import StoreUnavailable, TaskError
from exchange.spec import FederationSettings, NoPrivacy
from exchange.stores import Store, exists, open_store
from exchange.stores.memory import MemoryStore
from fedbucket.participation import Participation
from tests.support.emulators import running
from tests.support.federation import TIME_LIMIT, Federation
from tests.support.settings import client_settings, federation_settings
from tests.support.tasks import task, write_data, write_task

PATIENCE = 60  # seconds; only a test that is broken waits so long
STEPS = 20
# A task whose steps take time: with the saves of a second, and without any for reference.
SLOW = """
    import os, time

    def loss(output, target):
        time.sleep(float(os.environ.get("SECONDS_A_STEP", "0")))
        return torch.nn.functional.cross_entropy(output, target)
"""
SLEEPING = """
    import sys, time

    def loss(output, target):
        print("the task sleeps", file=sys.stderr, flush=True)
        time.sleep(600)
"""
PLAIN = federation_settings(
    ["alder"], rounds=2, quorum=1, inboxes=False, train={"learning_rate": 0.1, "local_epochs": STEPS, "momentum": 0.9}
)
PRIVATE = federation_settings(
    ["alder"],
    rounds=2,
    quorum=1,
    inboxes=False,
    privacy={
        "mechanism": "ornstein-uhlenbeck",
        "unit": "example",
        "adjacency": "add-or-remove",
        "epsilon": 4.0,
        "delta": 1e-5,
        "clip_norm": 1.0,
    },
)


class Own:
    """One client's machine, and the parent bucket.

    Args:
        state: the URL of its private state; a folder if None.
    """

    def __init__(self, folder: Path, settings: FederationSettings, state: str | None = None, **client: str) -> None:
        self.folder = folder
        self.settings = settings
        self.parent = open_store((folder / "parent").as_uri())
        self.state = state or (folder / "state").as_uri()
        self.toml = folder / "client.toml"
        write_task(folder, SLOW)
        write_data(folder / "own.npz")
        self.write({"data": "own.npz", **client})

    def write(self, client: dict[str, str], sha256: str | None = None) -> None:
        privacy = self.settings.privacy
        lines = ['id = "alder"', f'state = "{self.state}"', "time_limit = 1"]
        lines += [f'{name} = "{value}"' for name, value in client.items()]
        lines += ["[[agreement]]", 'federation = "orchard"', 'task = "task.py"', f'parent = "{self.parent.url}"']
        lines += [f'settings_sha256 = "{sha256 or self.settings.sha256}"', f'mechanisms = ["{privacy.mechanism}"]']
        if not isinstance(privacy, NoPrivacy):
            lines += [f"max_epsilon = {privacy.epsilon}", "[budget]", f'unit = "{privacy.unit}"']
            lines += [f'adjacency = "{privacy.adjacency}"', f"epsilon = {privacy.epsilon}", f"delta = {privacy.delta}"]
        self.toml.write_text("\n".join(lines))

    def start(self) -> None:
        parent_rounds.start(self.parent, self.settings, initial_model(task(self.folder, SLOW), self.settings))

    def sweep_parent(self) -> bool:
        """Let the parent's timer fire; return whether the run is over."""
        parent_rounds.sweep(Parent(self.parent, lambda _: self.parent, time_limit=0), "timer")
        return exists(self.parent, str(keys.Finished("orchard")))

    def models(self) -> list[bytes]:
        return [self.parent.read(info.key) for info in self.parent.list(keys.models("orchard"))]

    @contextmanager
    def running(self, *options: str, seconds_a_step: float = 0) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "fedbucket", "client", "run", str(self.toml), *options]
        environment = {**os.environ, "SECONDS_A_STEP": str(seconds_a_step), "PYTHONUNBUFFERED": "1"}
        # In the background of a script Ctrl-C is ignored, and what is ignored is inherited.
        heed: Callable[[], object] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heed) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *options: str) -> tuple[int, str]:
        """Return the exit status, and what it said."""
        with self.running(*options) as process:
            said = process.communicate(timeout=PATIENCE)[1]
            return process.returncode, said


def await_that(found: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    until = time.monotonic() + PATIENCE
    while not found():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.2)


def said_until(process: subprocess.Popen[str], words: str) -> None:
    """Wait until the process says something with `words` in it."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it never said {words!r}")


def models_in_one_process(folder: Path, settings: FederationSettings) -> list[bytes]:
    """Return all models of a run that nothing interrupts, in memory."""
    parent = MemoryStore(lambda: 0.0)
    own = client_settings("alder", settings).model_copy(update={"data": "own.npz"})
    learn = LocalTraining(own, folder, no_noise, no_noise)
    state = MemoryStore(lambda: 0.0)
    client = Client(own, lambda _: parent, None, state, learn, no_noise, time_limit=0, pace=Pace(lambda: 0.0))
    parent_rounds.start(parent, settings, initial_model(task(folder, SLOW), settings))
    for _ in range(settings.rounds):
        client_rounds.sweep(client)
        parent_rounds.sweep(Parent(parent, lambda _: parent, time_limit=0), "timer")
    return [parent.read(info.key) for info in parent.list(keys.models("orchard"))]


def no_noise(count: int) -> object:
    raise AssertionError(f"{count} draws of noise in a training without privacy")


@pytest.fixture
def bucket() -> Iterator[str]:
    """The URL of a bucket in S3."""
    with running("s3") as url:
        boto3.client("s3").create_bucket(Bucket=url.removeprefix("s3://"))
        yield url


@pytest.mark.slow
def test_with_state_and_data_in_s3_a_killed_process_goes_on_to_the_same_models(tmp_path: Path, bucket: str):
    own = Own(tmp_path, PLAIN, state=f"{bucket}/state", data=f"{bucket}/data/own.npz")
    open_store(bucket).create("data/own.npz", (tmp_path / "own.npz").read_bytes())
    expected = models_in_one_process(tmp_path, PLAIN)
    (tmp_path / "own.npz").unlink()
    own.start()
    state: Store = open_store(own.state)
    with own.running("--every", "1", seconds_a_step=0.1) as process:
        await_that(lambda: any(state.list(keys.checkpoints("orchard", 0))), process)
        process.kill()  # as a power cut does
        assert process.wait(PATIENCE) == -signal.SIGKILL
    assert not any(state.list(keys.releases("orchard")))
    with own.running("--every", "1") as process:
        await_that(own.sweep_parent, process)
        said = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 0, said
    assert re.search(r"round 0 of orchard goes on from checkpoint \d", said)
    assert said.rstrip().endswith("orchard: finished after 2 rounds")
    assert own.models() == expected


def test_it_waits_says_what_it_did_and_what_it_cost_and_ends_by_itself(tmp_path: Path):
    own = Own(tmp_path, PRIVATE)
    subprocess.run([sys.executable, "-m", "fedbucket", "privacy", "open", str(own.toml)], check=True)
    with own.running("--every", "1") as process:
        said_until(process, "orchard: waiting for the first model in file://")
        own.start()
        await_that(own.sweep_parent, process)
        said = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 0, said
    cost = r"ε = [\d.]+ of 4 is spent on 'data' \(unit: one example, add-or-remove; δ = 1e-05\)"
    for expected in (
        r"orchard: round 0 \(1/2\): training",
        rf"orchard: round 0: update uploaded; {cost}",
        rf"orchard: round 1: update uploaded; {cost}",
        r"orchard: finished after 2 rounds",
    ):
        assert re.search(expected, said), said


def test_once_looks_once_and_leaves_alone_what_another_process_is_at(tmp_path: Path):
    own = Own(tmp_path, PLAIN)
    own.toml.write_text(own.toml.read_text().replace("time_limit = 1", "time_limit = 1000"))
    own.start()
    open_store(own.state).create(str(keys.Attempt("orchard", 0, 0)), b"{}")
    status, said = own.run("--once")
    assert (status, exists(own.parent, str(keys.Update("orchard", "alder", 0)))) == (0, False), said
    assert "round 0: begun or saved less than 1000 s (time_limit) ago: left alone" in said
    federation = Federation(federation_settings()).start()
    assert Participation(federation.client("birch"), alone=False).look()
    assert federation.learners["birch"].calls == [0]


def test_a_task_that_fails_is_tried_again_only_after_the_time_limit_and_a_store_at_once():
    federation = Federation(federation_settings()).start()
    failure: list[Exception] = [TaskError("the disk is full")]
    tried = []

    def learn(*_: object) -> Learned:
        tried.append(federation.clock.now)
        if failure:
            raise failure[0]
        return Learned({})

    part = Participation(replace(federation.client("birch"), learn=learn), alone=True)
    well = []
    for _ in range(4):
        well.append(part.look())
        federation.clock.advance(TIME_LIMIT * 0.4)
    assert well == [False, True, True, False]
    assert len(tried) == 2
    failure[0] = StoreUnavailable("no answer")
    part = Participation(replace(federation.client("birch"), learn=learn), alone=True)
    assert not part.look()
    failure.clear()
    assert part.look()
    assert len(tried) == 4
    assert exists(federation.parent_bucket, str(keys.Update("orchard", "birch", 0)))


@pytest.mark.parametrize(
    ("number", "status", "at"),
    [
        (signal.SIGTERM, 143, "waiting for the first model"),
        (signal.SIGINT, 130, "waiting for the first model"),
        (signal.SIGTERM, 143, "training"),
    ],
)
def test_a_process_that_is_told_to_end_ends_cleanly(tmp_path: Path, number: signal.Signals, status: int, at: str):
    own = Own(tmp_path, PLAIN)
    if at == "training":
        own.start()
        write_task(tmp_path, SLEEPING)
    with own.running() as process:
        said_until(process, at)
        if at == "training":
            said_until(process, "the task sleeps")
        process.send_signal(number)
        said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == status
    assert "the same command goes on from here" in said
    assert "Traceback" not in said


def test_a_federation_that_was_not_agreed_to_is_refused_once_with_what_to_do(tmp_path: Path):
    own = Own(tmp_path, PLAIN)
    own.write({"data": "own.npz"}, sha256="0" * 64)
    own.start()
    status, said = own.run("--every", "1")
    assert status == 1
    assert said.count("alder does not agree to orchard; nothing was sent") == 1
    assert f"the settings have {PLAIN.sha256}" in said
    assert not any(open_store(own.state).list(""))


def test_without_an_account_it_says_how_to_open_one_before_any_round_is_open(tmp_path: Path):
    status, said = Own(tmp_path, PRIVATE).run()
    assert status == 1
    assert "data set 'data' has no account" in said
    assert "`fedbucket privacy open`" in said


def test_a_device_that_there_is_not_is_told_at_the_start(tmp_path: Path):
    status, said = Own(tmp_path, PLAIN, device="gpu").run()
    assert status == 1
    assert 'device: expected "cpu", "cuda"' in said
    assert "Traceback" not in said
