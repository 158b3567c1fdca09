"""`fedbucket run --emulators`: from federation.toml to a finished run folder, by way of two clouds."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from aggregator import rounds
from exchange import keys
from exchange.errors import RunStopped
from exchange.events import ObjectCreated, from_event_grid
from exchange.spec import NoPrivacy
from exchange.stores import open_store
from fedbucket import emulators
from fedbucket.emulated import results
from fedbucket.emulated.functions import Functions
from fedbucket.emulated.placement import Cloud, Placement
from fedbucket.emulated.watch import Watch
from fedbucket.emulators.buckets import make_bucket
from fedbucket.emulators.router import Router
from fedbucket.local.delivery import Chaos, Queue
from fedbucket.local.federation import LocalFederation, open_accounts
from fedbucket.local.folder import FederationFolder, RunFolder, read_folder
from fedbucket.local.journal import read_rounds
from fedbucket.local.pool import Pool
from fedbucket.local.progress import Progress
from fedbucket.local.results import write_results
from fedbucket.starting import given_model

_PATIENCE = 300.0  # seconds without any new object in the parent bucket, after which something must be wrong
_MARK = ".emulated"  # by which a folder is known for one from which a run may be removed
_LEFT = ("buckets", "private", "functions", "logs", "embedded")


def run_emulated(
    federation: Path,
    parent: Cloud,
    out: Path | None = None,
    init: Path | None = None,
    chaos: int | None = None,
    show: TextIO | None = None,
) -> tuple[RunFolder, dict[str, Any]]:
    """Run a federation across emulated clouds, and the same once more in this process, to compare.

    Args:
        federation: the path of federation.toml.
        parent: the cloud of the parent bucket and its functions.
        out: the run's folder, from which an earlier emulated run is removed; runs/NAME if None.
        init: a weight file to start from, in place of the task's initial weights.
        chaos: the seed of an unkind delivery of events; None delivers each once.
        show: where progress goes.

    Returns:
        The run's folder and the content of its summary.json.

    Raises:
        SettingsError: the settings are not sound.
        RunStopped: the run stands still, or its folder holds something else.
    """
    folder = read_folder(federation)
    placement = Placement(folder, parent)
    run = RunFolder((out or Path("runs") / folder.settings.name).resolve())
    _empty(run)
    here = replace(folder, settings=placement.settings())
    progress = Progress(show, here.settings.rounds, here.settings.roster)
    with run.alone(), Pool(here, run) as pool:
        began = time.time()
        model = given_model(init, here.settings) if init else pool.call("first_model")
        watch = Watch(placement.parent_bucket.partition("://")[2], progress)
        _run(placement, here, run, model, watch, chaos)
        progress.end()
        results.write_rounds(here, run, pool, began)
        more = {
            "emulated": {"parent": parent, "clients": placement.places},
            "last_upload_to_model_seconds": results.seconds_to_model(watch.created, here.settings.name),
            **_compared(folder, run, model, progress),
        }
        return run, write_results(here, run, pool, progress, more)


def _run(
    placement: Placement, here: FederationFolder, run: RunFolder, model: bytes, watch: Watch, chaos: int | None
) -> None:
    """Have storage, functions and router run until the run is over; keep what is then in the buckets."""
    logs = run.path / "logs"
    logs.mkdir()
    unkind = Chaos(chaos) if chaos is not None else None
    with Router(unkind, dead_letters=run.path / "dead-letters.jsonl") as router, _clouds(router, watch) as environment:
        for url in placement.buckets():
            make_bucket(url)
        _provide(placement, here)
        functions = Functions(placement, environment, run.path / "functions", logs, router)
        with functions.running(here.settings):
            rounds.start(open_store(placement.parent_bucket), here.settings, model)
            if not watch.wait_for(str(keys.Finished(here.settings.name)), _PATIENCE):
                raise RunStopped(f"nothing was created for {_PATIENCE:.0f} s; the functions' logs are in {logs}")
        results.keep(placement, run)


@contextmanager
def _clouds(router: Router, watch: Watch) -> Iterator[Mapping[str, str]]:
    """Have storage of three clouds, which this process and its children find; tell of what is created there."""

    def in_gcs(resource: Mapping[str, Any]) -> None:
        router.gcs_object(resource)
        watch.saw(ObjectCreated(resource["bucket"], resource["name"], ""))

    def in_azure(event: Mapping[str, Any]) -> None:
        router.blob(event)
        for created in from_event_grid(event):
            watch.saw(created)

    with ExitStack() as running:
        environment: dict[str, str] = {}
        for cloud in (emulators.gcs(in_gcs), emulators.azure(in_azure), emulators.s3()):
            environment |= running.enter_context(cloud)
        running.enter_context(_in_environment(environment))
        yield environment


@contextmanager
def _in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The SDKs take from the environment where their stores are."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _provide(placement: Placement, here: FederationFolder) -> None:
    """Give each client its data, and its privacy account if it grants a budget."""
    for client in placement.places:
        store = open_store(placement.data(client))
        for key, path in placement.data_objects(client):
            store.create(key, path.read_bytes())
    open_accounts(here.clients, lambda client: open_store(placement.state(client)))


def _compared(folder: FederationFolder, run: RunFolder, model: bytes, progress: Progress) -> dict[str, Any]:
    """Run the federation in this process, and say whether that made the same model, and how good its own is."""
    embedded = RunFolder(run.path / "embedded")
    embedded.path.mkdir()
    progress.note("the same in one process, to compare")
    with embedded.alone(), Pool(folder, embedded) as pool:
        LocalFederation(folder, embedded, pool, Queue(None), Progress(None, 0, [])).go(model)
    lines = read_rounds(embedded.rounds)
    same = results.final_model(run) == results.final_model(embedded)
    return {
        "same_model_as_embedded": same
        if isinstance(folder.settings.privacy, NoPrivacy)
        else None,  # noise is drawn anew
        "embedded_accuracy": lines[-1]["accuracy"] if lines else None,
    }


def _empty(run: RunFolder) -> None:
    """Remove an earlier emulated run: the emulators' buckets are gone with them, and it cannot be gone on with."""
    mark = run.path / _MARK
    if (run.path / "buckets").exists() and not mark.exists():
        raise RunStopped(f"{run.path} holds a run that is not emulated; take another folder with --out")
    for name in _LEFT:
        shutil.rmtree(run.path / name, ignore_errors=True)
    run.baselines.unlink(missing_ok=True)
    run.path.mkdir(parents=True, exist_ok=True)
    mark.touch()
