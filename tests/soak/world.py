"""A federation on emulated clouds: each process can be killed, each connection to storage leads through a proxy."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from exchange.spec import ClientSettings, FederationSettings, ParentSettings
from exchange.stores import open_store
from fedbucket.emulated.functions import Functions
from fedbucket.emulated.placement import Placement
from fedbucket.emulators import Emulator, Router, azure_emulator, gcs_emulator, s3_emulator
from fedbucket.emulators.buckets import make_bucket
from fedbucket.emulators.process import Process
from tests.soak.disturbances import Disturbance, Victims
from tests.soak.network import Line, lossy
from tests.support.faulty import serving

TIME_LIMIT = 10  # seconds: who is killed is waited for no longer
TIMER = 2.0  # seconds between two sweeps
_DISK = "size=1m"  # of the client's own disk; what it keeps of ten rounds is 100 kB


@dataclass(frozen=True)
class OwnDisk(Placement):
    """The same, but the client on its own hardware keeps its state on its disk, and time limits are short."""

    disk: Path

    def state(self, client: str) -> str:
        return self.disk.as_uri() if self.places[client] == "own hardware" else super().state(client)

    def buckets(self) -> Iterator[str]:
        return (url for url in super().buckets() if not url.startswith("file:"))

    def parent_settings(self) -> ParentSettings:
        return super().parent_settings().model_copy(update={"time_limit": TIME_LIMIT})

    def client_settings(self, client: str, published: FederationSettings) -> ClientSettings:
        return super().client_settings(client, published).model_copy(update={"time_limit": TIME_LIMIT})


@dataclass
class World:
    """What runs, by name.

    Attributes:
        disk: the folder of the small disk; None where there is none.
        lost: the notifications that were lost on the way.
        died: who ended by himself, and with which exit status. None should.
    """

    hosts: Mapping[str, Process]
    storage: Mapping[str, Emulator]
    lines: Mapping[str, Line]
    disk: Path | None
    lost: Sequence[Mapping[str, Any]]
    died: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)  # two lanes of disturbances

    @property
    def victims(self) -> Victims:
        disks = ["own hardware"] if self.disk else []
        return Victims(sorted(self.hosts), ["azure", "gcs"], sorted(self.storage), disks)

    @contextmanager
    def disturbed(self, what: Disturbance) -> Iterator[None]:
        """Have the disturbance within, and all well again afterwards."""
        with self._lock:
            self._begin(what)
        try:
            yield
        finally:
            with self._lock:
                self._end(what)

    def find_dead(self, names: Iterable[str]) -> None:
        """Take note of those that have ended by themselves; a client does when all is over."""
        ended = {name: self._process(name).ended for name in names}
        self.died += [f"{name} ended by itself with {status}" for name, status in ended.items() if status]

    def _begin(self, what: Disturbance) -> None:
        match what.kind:
            case "kill -9":
                self.find_dead([what.whom])
                self._process(what.whom).kill()
            case "stall":
                self._process(what.whom).signal(signal.SIGSTOP)
            case "full disk":
                self._fill()
            case kind:
                self.lines[what.whom].state = kind

    def _end(self, what: Disturbance) -> None:
        match what.kind:
            case "kill -9":
                self._process(what.whom).start()
            case "stall":
                self._process(what.whom).signal(signal.SIGCONT)
            case "full disk":
                _filler(self.disk).unlink()
            case _:
                self.lines[what.whom].state = "well"

    def _process(self, name: str) -> Process:
        return self.hosts.get(name) or self.storage[name]

    def _fill(self) -> None:
        with _filler(self.disk).open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(256))
            except OSError:  # so it is full
                return


def _filler(disk: Path | None) -> Path:
    assert disk is not None
    return disk / "filler"


@contextmanager
def world(placement: OwnDisk, folder: Path, seed: int) -> Iterator[World]:
    """Have everything run, each emulator with a folder that outlives it; this process goes to them directly."""
    logs = folder / "logs"
    logs.mkdir()
    with Router(dead_letters=folder / "dead-letters.jsonl") as router, ExitStack() as running:
        lost: list[Mapping[str, Any]] = []
        folders = {cloud: folder / cloud for cloud in ("gcs", "azure")}
        for each in folders.values():
            each.mkdir()
        storage = {
            "gcs": running.enter_context(gcs_emulator(lossy(router.gcs_object, seed, lost), folders["gcs"])),
            "azure": running.enter_context(azure_emulator(lossy(router.blob, seed, lost), folders["azure"])),
            "s3": running.enter_context(s3_emulator()),
        }
        here = running.enter_context(pytest.MonkeyPatch.context())
        for variable, value in chain.from_iterable(each.environment.items() for each in storage.values()):
            here.setenv(variable, value)
        _provide(placement)
        lines = {name: running.enter_context(serving(Line(_url(each), seed))) for name, each in storage.items()}
        environment = {
            variable: value.replace(_url(each), lines[name].url)
            for name, each in storage.items()
            for variable, value in each.environment.items()
        }
        functions = Functions(placement, environment, folder / "functions", logs, router, TIMER)
        running.enter_context(functions.running(placement.settings()))
        hosts = {
            f"{party} {number}": process
            for party, processes in functions.processes.items()
            for number, process in enumerate(processes)
        }
        disk = placement.disk.parent
        yield World(hosts, storage, lines, disk if disk.is_mount() else None, lost)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a small disk at `folder`, where this user may; else it is a folder like any other."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", _DISK, "tmpfs", folder], capture_output=True, check=False)
    try:
        yield folder
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)


def _url(emulator: Emulator) -> str:
    (url,) = re.findall(r"http://[\d.]+:\d+", " ".join(emulator.environment.values()))
    return str(url)


def _provide(placement: OwnDisk) -> None:
    for url in placement.buckets():
        make_bucket(url)
    for client in placement.places:
        for key, path in placement.data_objects(client):
            open_store(placement.data(client)).create(key, path.read_bytes())
