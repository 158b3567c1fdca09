"""The command line."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from aggregator import inspection
from exchange.documents import sha256
from exchange.errors import SettingsError
from exchange.spec import read_federation
from fedbucket import __version__
from fedbucket.client_commands import client
from fedbucket.emulated.placement import Cloud
from fedbucket.endings import ending
from fedbucket.local.folder import RunFolder
from fedbucket.local.progress import log_beside_the_line
from fedbucket.local.run import run_federation
from fedbucket.packaging import package as write_package
from fedbucket.parent_commands import prune, report, start
from fedbucket.privacy_commands import privacy
from fedbucket.report.chance import margin
from fedbucket.report.wording import duration
from fedbucket.scaffold import new_federation
from fedbucket.terminal import parent_bucket, plain_errors

_FEDERATION = click.option("--federation", metavar="NAME", help="Which one, where a bucket holds several.")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Federated learning with no servers: a loop of objects in buckets.

    Begin with `fedbucket new NAME`, then `fedbucket run NAME/federation.toml`.
    """


main.add_command(client)
main.add_command(privacy)
main.add_command(start)
main.add_command(prune)
main.add_command(report)


@main.command()
@click.argument("federation", type=_FILE)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="The run's folder  [default: runs/NAME]")
@click.option("--init", type=_FILE, help="Start from these weights (safetensors) in place of the task's own.")
@click.option("--chaos", type=int, metavar="SEED", help="Deliver events twice, late, out of order; let handlers fail.")
@click.option(
    "--emulators",
    "parent",
    type=click.Choice(["gcp", "azure"]),
    is_flag=False,
    flag_value="gcp",
    help="Across emulated clouds; the parent's is gcp unless azure is named.",
)
@click.option("--json", "as_json", is_flag=True, help="Print summary.json, and nothing else, on standard output.")
def run(
    federation: Path, out: Path | None, init: Path | None, chaos: int | None, parent: Cloud | None, as_json: bool
) -> None:
    """Run a federation on this machine, every client in it.

    FEDERATION is a federation.toml; the clients' settings lie beside it, in clients/. Interrupted at any point, the
    same command goes on from the run's buckets. Exit status 0 if the run finished as intended: all rounds done, or
    stopped by its rule.
    """
    with plain_errors():
        log_beside_the_line()
        show = None if as_json else sys.stderr
        if parent is None:
            folder, summary = run_federation(federation, out, init, chaos, show)
        else:
            folder, summary = _across_clouds()(federation, parent, out, init, chaos, show)
        click.echo(json.dumps(summary, indent=2) if as_json else _results(folder, summary))
        if summary["finished"]["reason"] == "void":
            raise SystemExit(1)


@main.command()
@click.argument("run")
@_FEDERATION
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(run: str, federation: str | None, as_json: bool) -> None:
    """Show who has answered, and who is late.

    RUN is a run's folder, its name under runs/, or the URL of a parent bucket.
    """
    with plain_errors():
        store, name = parent_bucket(run, federation)
        found = inspection.status(store, name)
        click.echo(json.dumps(asdict(found), indent=2) if as_json else _status_table(found))


@main.command()
@click.argument("run")
@_FEDERATION
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(run: str, federation: str | None, as_json: bool) -> None:
    """Compute every model anew and compare the bytes.

    Each round's model of RUN (a run's folder, its name under runs/, or the URL of a parent bucket) is made again from
    its cohort. Exit status 0 if all agree; a round whose updates `fedbucket prune` has removed is "pruned", not bad.
    """
    with plain_errors():
        store, name = parent_bucket(run, federation)
        verdicts = []
        for verdict in inspection.verify(store, name):
            verdicts.append(verdict)
            if not as_json:
                click.echo(f"round {verdict.round:>3}  {verdict.verdict:<4}  {verdict.detail}")
        bad, pruned = (sum(verdict.verdict == kind for verdict in verdicts) for kind in ("bad", "pruned"))
        rows = {"federation": name, "bad": bad, "pruned": pruned, "rounds": [asdict(verdict) for verdict in verdicts]}
        counts = f"{len(verdicts)} rounds, {bad} bad" + (f", {pruned} pruned" if pruned else "")
        click.echo(json.dumps(rows, indent=2) if as_json else counts)
        if bad:
            raise SystemExit(1)


@main.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="NAME")
def new(path: Path) -> None:
    """Write a federation folder to start from.

    It is called NAME, and runs as it is, on made-up data.
    """
    with plain_errors():
        for written in new_federation(path):
            click.echo(written)
        click.echo(f"\nnext: fedbucket run {path / 'federation.toml'}")


@main.command()
@click.argument("federation", type=_FILE)
def settings(federation: Path) -> None:
    """Print what the parent would publish, and its SHA-256.

    FEDERATION is a federation.toml. Every default is written out. The SHA-256, which clients pin in client.toml as
    settings_sha256, comes on standard error.
    """
    with plain_errors():
        found = read_federation(federation)
        click.echo(found.to_bytes(), nl=False)
        click.echo(found.sha256, err=True)


@main.command()
@click.argument("cloud", type=click.Choice(["gcp", "azure"]))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("dist"), show_default=True)
@click.option("--task", "tasks", type=_FILE, multiple=True, help="A client's task module; once for each that it has.")
def package(cloud: str, out: Path, tasks: tuple[Path, ...]) -> None:
    """Write the functions of a cloud as zips, ready to deploy.

    CLOUD-parent.zip holds the parent's; with --task, CLOUD-client.zip holds a client's, with its task beside it: the
    agreement in client.toml names it by its file name. The same source gives the same bytes.
    """
    with plain_errors():
        for written in write_package(cloud, out, tasks):
            click.echo(f"{sha256(written.read_bytes())}  {written}")


def _across_clouds() -> Callable[..., tuple[RunFolder, dict[str, Any]]]:
    try:
        from fedbucket.emulated.run import run_emulated  # here and not above: it imports every cloud's SDK
    except ModuleNotFoundError as error:
        message = f"{error.name} is missing: pip install 'fedbucket[local,emulators]'"
        raise SettingsError("--emulators", [message]) from error
    return run_emulated


def _results(folder: RunFolder, summary: dict[str, Any]) -> str:
    lines = [ending(summary["rounds"], summary["finished"]["reason"])]
    if summary["federated_accuracy"] is not None:
        lines.append(f"  federated accuracy  {summary['federated_accuracy']:.1%}")
    if summary["alone_accuracy"] is not None:
        lines.append(f"  each client alone   {summary['alone_accuracy']:.1%} on average")
        lines.append(f"  all data pooled     {summary['pooled_accuracy']:.1%}")
    if summary["ratio"] is not None:
        lines.append(f"  ratio               {summary['ratio']:.2f} × (federated to alone)")
    if (examples := summary["test_examples"]) and summary["federated_accuracy"] is not None:
        chance = f"differences below {100 * margin(summary['federated_accuracy'], examples):.1f} points may be chance"
        lines.append(f"  test set            {examples} examples; {chance}")
    lines += _other_metrics(summary["metrics"])
    lines.append(f"  privacy             {_privacy(summary['privacy'])}")
    return "\n".join([*lines, f"results: {folder.path}", f"look at: {folder.report}"])


def _other_metrics(metrics: dict[str, Any]) -> list[str]:
    """Return a line for each metric of the test set but accuracy, of which the settings may have any."""
    lines = []
    for name, value in metrics["federated"].items():
        if name != "accuracy":
            alone = [found[name] for found in metrics["alone"].values() if name in found]
            compared = f"; alone {sum(alone) / len(alone):.4g} on average" if alone else ""
            compared += f"; pooled {metrics['pooled'][name]:.4g}" if name in (metrics["pooled"] or {}) else ""
            lines.append(f"  {name:<18}  {value:.4g} federated{compared}")
    return lines


def _status_table(found: inspection.Status) -> str:
    if found.finished:
        return f"{found.federation}: {ending(found.round, found.finished)}"
    head = (
        f"{found.federation}: round {found.round} ({found.round + 1}/{found.rounds}), open for {duration(found.age)}, "
        f"deadline {duration(found.deadline)}, quorum {found.quorum} of {len(found.answers)}"
    )
    width = max(len(answer.client) for answer in found.answers)
    rows = [
        f"  {answer.client:<{width}}  {answer.state:<9}  {answer.detail or ''}".rstrip() for answer in found.answers
    ]
    return "\n".join([head, *rows])


def _privacy(privacy: dict[str, Any]) -> str:
    if privacy["mechanism"] == "none":
        return "none: the updates reveal what they reveal"
    unit = f"unit: one {privacy['unit']}, {privacy['adjacency']}; δ = {privacy['delta']:g}"
    return f"ε = {privacy['epsilon']:g} for each client's data ({unit}), {privacy['mechanism']}"
