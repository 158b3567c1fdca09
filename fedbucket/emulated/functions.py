"""The functions of an emulated federation: packaged as for the clouds, each in a process of its own, and subscribed."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import tomli_w

from exchange.documents import Document
from exchange.spec import ClientSettings, FederationSettings
from fedbucket.emulated.placement import Cloud, Placement
from fedbucket.emulators.hosts import azure_function, gcp_function, until_end_of_input
from fedbucket.emulators.process import Process
from fedbucket.emulators.router import Router
from fedbucket.emulators.subscriptions import Eventarc, StorageQueue
from fedbucket.packaging import package

_QUEUE = "objects"
_TIMER = 5.0  # seconds between two firings; minutes in a cloud, where a sweep costs money and nobody looks on
_EVERY = "1"  # seconds, of the client on its own hardware, which has no other way to learn of a new model
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # of torch, as in a run in one process: sums are then added in the same order
_PARENTS = 2  # instances of the parent's function in Google Cloud: they race, as they do there


class Functions:
    """All functions of a federation, started and subscribed.

    Args:
        environment: how they find the storage of the clouds.
        folder: where the packages are unpacked.
        logs: a folder for their logs.
        timer: seconds between two firings of each timer.

    Attributes:
        processes: those of the parent and of each client, once they run.
    """

    def __init__(
        self,
        placement: Placement,
        environment: Mapping[str, str],
        folder: Path,
        logs: Path,
        router: Router,
        timer: float = _TIMER,
    ) -> None:
        self.processes: dict[str, list[Process]] = {}
        self._placement = placement
        self._environment = {**environment, **_ONE_THREAD}
        self._folder = folder
        self._logs = logs
        self._router = router
        self._timer = timer

    @contextmanager
    def running(self, published: FederationSettings) -> Iterator[None]:
        """Have all functions run, those of the clients by the settings that the parent publishes."""
        with ExitStack() as running:
            with ThreadPoolExecutor(os.cpu_count()) as starting:
                for _ in starting.map(lambda start: start(running), self._parties(published)):
                    pass
            yield

    def _parties(self, published: FederationSettings) -> Iterator[Callable[[ExitStack], None]]:
        """Yield, for the parent and each client, what starts it."""
        parent = {"FEDBUCKET_PARENT": _toml(self._placement.parent_settings())}
        yield partial(self._start, "parent", self._placement.parent, self._placement.parent_bucket, parent)
        for client, place in self._placement.places.items():
            own = self._placement.client_settings(client, published)
            if place == "own hardware" or own.inbox is None:
                yield partial(self._start_own, client, own)
            else:
                yield partial(self._start, client, place, own.inbox, {"FEDBUCKET_CLIENT": _toml(own)})

    def _start(self, who: str, cloud: Cloud, bucket: str, variables: Mapping[str, str], running: ExitStack) -> None:
        """Start a party's functions and have its bucket and its timer wake them."""
        source = self._unpacked(cloud, who)
        environment = {**self._environment, **variables}
        name = bucket.partition("://")[2]
        log = self._logs / f"{who}.log"
        if cloud == "gcp":
            instances = _PARENTS if who == "parent" else 1
            host = running.enter_context(gcp_function(source, "on_object", environment, log, instances))
            timer = running.enter_context(gcp_function(source, "on_timer", environment, log))
            self._router.subscribe(Eventarc(name, host))
            self._router.timer(timer, "/", self._timer)
            self.processes[who] = [host, timer]
        else:
            settings = {"FEDBUCKET_QUEUE": _QUEUE, "FEDBUCKET_TIMER": "0 */5 * * * *"}
            host = running.enter_context(azure_function(source, {**environment, **settings}, log))
            self._router.subscribe(StorageQueue(name, host, _QUEUE))
            self._router.timer(host, "/admin/functions/on_timer", self._timer)
            self.processes[who] = [host]

    def _unpacked(self, cloud: Cloud, who: str) -> Path:
        """Return the folder of a function: its package, unpacked."""
        side = "parent" if who == "parent" else "client"
        tasks = [] if side == "parent" else [self._placement.task(who)]
        zips = package(cloud, self._folder / "zips" / who, tasks)
        with ZipFile(next(path for path in zips if path.stem.endswith(side))) as content:
            content.extractall(self._folder / who)
        return self._folder / who

    def _start_own(self, client: str, settings: ClientSettings, running: ExitStack) -> None:
        """Start a client on its own hardware: a process that looks for new models."""
        folder = self._folder / client
        folder.mkdir(parents=True)
        (folder / "client.toml").write_text(_toml(settings), encoding="utf-8")
        task = self._placement.task(client)
        (folder / task.name).write_bytes(task.read_bytes())
        program = ("fedbucket", "client", "run", str(folder / "client.toml"), "--every", _EVERY)
        log = self._logs / f"{client}.log"
        process = Process(client, until_end_of_input(*program), self._environment, log=log)
        self.processes[client] = [running.enter_context(process)]


def _toml(settings: Document) -> str:
    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))
