"""`fedbucket run`: from federation.toml to a finished run folder."""

from pathlib import Path
from typing import Any, TextIO

from exchange.events import ObjectCreated
from fedbucket.local.delivery import Chaos, Queue
from fedbucket.local.federation import LocalFederation
from fedbucket.local.folder import RunFolder, read_folder
from fedbucket.local.pool import Pool
from fedbucket.local.progress import Progress
from fedbucket.local.results import write_results
from fedbucket.starting import given_model


def run_federation(
    federation: Path,
    out: Path | None = None,
    init: Path | None = None,
    chaos: int | None = None,
    show: TextIO | None = None,
) -> tuple[RunFolder, dict[str, Any]]:
    """Run a federation on this machine, or go on with a run that was interrupted.

    Args:
        federation: the path of federation.toml.
        out: the run's folder; runs/NAME if None.
        init: a weight file to start from, in place of the task's initial weights.
        chaos: the seed of an unkind delivery of events; None delivers in order.
        show: where progress goes.

    Returns:
        The run's folder and the content of its summary.json.

    Raises:
        SettingsError: the settings are not sound.
        InvalidTensorFile: `init` is no weight file.
        RunStopped: a person must act before the run can go on.
    """
    folder = read_folder(federation)
    settings = folder.settings
    run = RunFolder((out or Path("runs") / settings.name).resolve())
    run.path.mkdir(parents=True, exist_ok=True)
    progress = Progress(show, settings.rounds, settings.roster)
    queue: Queue[ObjectCreated] = Queue(Chaos(chaos) if chaos is not None else None)
    with run.alone(), Pool(folder, run) as pool:
        given = given_model(init, settings) if init else None
        LocalFederation(folder, run, pool, queue, progress).go(given)
        return run, write_results(folder, run, pool, progress)
