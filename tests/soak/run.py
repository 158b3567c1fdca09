"""One run of a federation while it is disturbed, and the same undisturbed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

from aggregator import rounds
from exchange import keys
from exchange.errors import StoreUnavailable
from exchange.public import newest_model
from exchange.stores import Store, exists, open_store
from fedbucket.emulated.placement import Cloud
from fedbucket.local.delivery import Queue
from fedbucket.local.federation import LocalFederation
from fedbucket.local.folder import FederationFolder, RunFolder, read_folder
from fedbucket.local.pool import Pool
from fedbucket.local.progress import Progress
from fedbucket.scaffold import new_federation
from tests.soak.disturbances import Disturbance, kills, troubles
from tests.soak.world import OwnDisk, World, small_disk, world

NAME = "soak"
_PATIENCE = 300.0  # seconds without a new model, after which nobody can be waiting for a disturbance to end
_LOOK = 1.0  # seconds


@dataclass(frozen=True)
class Setup:
    """A federation to be run.

    Attributes:
        first: the file of global model 0.
        models: round → SHA-256 of the file of each global model that must come of it.
    """

    federation: FederationFolder
    first: bytes
    models: Mapping[int, str]


def undisturbed(folder: Path, rounds_: int) -> Setup:
    """Run three hospitals, without noise, in one process, and return what came of that."""
    new_federation(folder / NAME)
    settings = folder / NAME / "federation.toml"
    settings.write_text(settings.read_text().replace("rounds = 20", f"rounds = {rounds_}"))
    (folder / NAME / "local.toml").write_text("baselines = false\n")
    federation, run = read_folder(settings), RunFolder(folder / "undisturbed")
    run.path.mkdir()
    with run.alone(), Pool(federation, run) as pool:
        first = pool.call("first_model")
        LocalFederation(federation, run, pool, Queue(None), Progress(None, 0, [])).go(first)
    return Setup(federation, first, models_in(run.parent, rounds_))


def disturbed(setup: Setup, folder: Path, parent: Cloud, seed: int, scale: float = 1.0) -> dict[str, Any]:
    """Run the same on emulated clouds, and disturb it until it is over.

    Args:
        folder: a new folder for all that the run leaves.
        scale: makes disturbances, and the pauses between them, shorter.

    Returns:
        What was done, and what is wrong: nothing, if its models are those of the run that was left alone.
    """
    folder.mkdir()
    done: list[dict[str, Any]] = []
    began, over = time.monotonic(), Event()
    with small_disk(folder / "disk") as disk:
        placement = OwnDisk(setup.federation, parent, disk / "state")
        with world(placement, folder, seed) as running, ThreadPoolExecutor(2) as lanes:
            victims, store = running.victims, open_store(placement.parent_bucket)
            rounds.start(store, placement.settings(), setup.first)
            plans = (kills(seed, victims, scale), troubles(seed, victims, scale))
            lanes_ = [lanes.submit(_disturb, running, plan, over, began, done) for plan in plans]
            try:
                newest = _wait_for_end(store)
            finally:
                over.set()
            for lane in lanes_:
                lane.result()
            running.find_dead([*running.hosts, *running.storage])
            wrong = [*what_is_wrong(store, setup.models, newest), *running.died]
    return {
        "seed": seed,
        "parent": parent,
        "rounds": len(setup.models) - 1,
        "seconds": round(time.monotonic() - began, 1),
        "done": sorted(done, key=lambda each: each["at"]),
        "lost_notifications": len(running.lost),
        "left_out": [] if victims.disks else ["full disk: this user may not mount one"],
        "wrong": wrong,
    }


def _disturb(
    running: World, plan: Iterator[Disturbance], over: Event, began: float, done: list[dict[str, Any]]
) -> None:
    for what in plan:
        if over.wait(what.after):
            return
        done.append({"at": round(time.monotonic() - began, 2), **asdict(what)})
        with running.disturbed(what):
            over.wait(what.seconds)


def _wait_for_end(store: Store) -> int:
    """Wait until the run is over, or for long too nothing new comes of it; return the number of its newest model."""
    newest, since = -1, time.monotonic()
    while time.monotonic() - since < _PATIENCE:
        with suppress(StoreUnavailable):
            if (found := newest_model(store, NAME)) is not None and found > newest:
                newest, since = found, time.monotonic()
            if exists(store, str(keys.Finished(NAME))):
                break
        time.sleep(_LOOK)
    return newest


def what_is_wrong(store: Store, expected: Mapping[int, str], newest: int) -> Sequence[str]:
    """Return in words how a parent bucket differs from one with the expected models, of which it has `newest`."""
    last = max(expected)
    if newest != last or not exists(store, str(keys.Finished(NAME))):
        return [f"it stands still: model {newest} of {last}, and nothing new for {_PATIENCE:.0f} s"]
    found = models_in(store, last)
    other = [f"model {round_} is another" for round_ in expected if found[round_] != expected[round_]]
    return other + [f"{info.key} is no key of ours" for info in store.list("") if keys.parse(info.key) is None]


def models_in(store: Store, rounds_: int) -> dict[int, str]:
    """Return for each round up to `rounds_` the SHA-256 of its global model's file."""
    numbers = range(rounds_ + 1)
    return {round_: sha256(store.read(str(keys.Model(NAME, round_)))).hexdigest() for round_ in numbers}
