"""Commands of whoever owns the parent bucket: begin a federation in it, prune it, and see what came of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from exchange.errors import RunStopped, SettingsError
from exchange.spec import FederationSettings, read_federation
from exchange.stores import ObjectInfo, open_store
from fedbucket import report as page
from fedbucket import retention, starting
from fedbucket.bucket_report import read_bucket
from fedbucket.local.folder import RunFolder
from fedbucket.local.journal import read_rounds
from fedbucket.report.wording import ranges, size
from fedbucket.terminal import parent_bucket, plain_errors, run_path

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("federation", type=_FILE)
@click.option("--parent", required=True, metavar="URL", help="The parent bucket.")
@click.option("--task", type=_FILE, help="Start from the initial weights of this task module, which is run here.")
@click.option("--init", type=_FILE, help="Start from these weights (safetensors).")
def start(federation: Path, parent: str, task: Path | None, init: Path | None) -> None:
    """Begin a federation in a parent bucket.

    FEDERATION is a federation.toml. Its settings are published, then global model 0, which opens the first round.
    Before that it says how loud the noise will be. The same command again changes nothing; a federation that was begun
    is never changed.
    """
    with plain_errors():
        settings = read_federation(federation)
        model = _model(settings, task, init)
        if sentence := starting.noise_of(settings, model):
            click.echo(sentence)
        store = open_store(parent)
        for key in starting.start(store, settings, model):
            click.echo(f"{store.url}/{key}")
        click.echo(f'\nclients pin, in client.toml:\nsettings_sha256 = "{settings.sha256}"')


@click.command()
@click.argument("parent")
@click.option("--federation", metavar="NAME", required=True, help="Which one.")
@click.option(
    "--before", type=click.IntRange(min=1), required=True, metavar="ROUND", help="Only rounds below this one."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(parent: str, federation: str, before: int, yes: bool) -> None:
    """Remove the updates of closed rounds.

    PARENT is the URL of a parent bucket, or a run's folder. Models, cohorts, summaries and receipts stay, and until the
    run is finished each round that holds a client's newest update. What is removed is first written to
    rounds/R/pruned.json, after which `fedbucket verify` calls the round "pruned": its model can no longer be computed
    anew. Interrupted, the same command goes on.
    """
    with plain_errors():
        store, name = parent_bucket(parent, federation)
        found = retention.removable(store, name, before)
        if not found:
            click.echo(f"nothing to remove: no closed round below {before} has updates that may go")
            return
        click.echo(f"{_amount(found)} of {name} in {store.url} would be removed: models, cohorts, receipts stay")
        if not yes:
            click.confirm("Remove them?", abort=True)
        for round_, updates in found.items():
            retention.prune(store, name, round_, updates)
            click.echo(f"round {round_:>3}  {len(updates)} removed")


@click.command()
@click.argument("run")
@click.option("--federation", metavar="NAME", help="Which one, where a bucket holds several.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The page  [default: RUN/report.html]")
@click.option("--json", "as_json", is_flag=True, help="Print what the page is made of; write no page.")
def report(run: str, federation: str | None, out: Path | None, as_json: bool) -> None:
    """Make the report page of a run.

    RUN is a run's folder, its name under runs/, or the URL of a parent bucket. Of a bucket the page shows what is in
    it: no accuracy but what clients shared, and no client's private account.
    """
    with plain_errors():
        if "://" in run:
            if out is None and not as_json:
                raise click.UsageError("for a bucket name the page with --out FILE.html, or take --json")
            summary, rounds = read_bucket(*parent_bucket(run, federation))
        else:
            folder = RunFolder(run_path(run))
            out = out or folder.report
            summary, rounds = _of_folder(folder)
        if as_json or out is None:
            click.echo(json.dumps({"summary": summary, "rounds": rounds}, indent=2))
        else:
            out.write_text(page.render(summary, rounds), encoding="utf-8")
            click.echo(out)


def _model(settings: FederationSettings, task: Path | None, init: Path | None) -> bytes:
    if task is not None and init is None:
        return starting.first_model(task, settings)
    if init is not None and task is None:
        return starting.given_model(init, settings)
    raise click.UsageError("take either --task, for its initial weights, or --init, for given ones")


def _amount(found: Mapping[int, Sequence[ObjectInfo]]) -> str:
    sizes = [update.size for updates in found.values() for update in updates]
    rounds = f"{'round' if len(found) == 1 else 'rounds'} {ranges(list(found))}"
    return f"{len(sizes)} update{'s' * (len(sizes) > 1)} ({size(sum(sizes))}) of {rounds}"


def _of_folder(folder: RunFolder) -> tuple[dict[str, object], list[dict[str, object]]]:
    if not folder.summary.exists():
        raise SettingsError(
            str(folder.path), ["has no summary.json yet: the run has not finished; `fedbucket run` goes on with it"]
        )
    try:
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunStopped(f"{folder.summary}: expected JSON: {error}; `fedbucket run` writes it anew") from error
    return summary, read_rounds(folder.rounds)
