"""`fedbucket client`: taking part from a machine of one's own."""

import logging
import signal
import tempfile
from pathlib import Path
from types import FrameType

import click

from client.deployment import deployed
from exchange.errors import SettingsError
from exchange.spec import read_client
from fedbucket.participation import Participation
from fedbucket.terminal import plain_errors

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_TERMINATED = 143  # what a shell gives a program that SIGTERM ended
_EVERY = 60  # seconds: little beside a round's deadline, and some ten thousand requests a day, a few cents


@click.group()
def client() -> None:
    """Taking part, as one client."""


@client.command()
@click.argument("client", type=_FILE)
@click.option("--once", is_flag=True, help="Look once, answer what is open, and end: for cron.")
@click.option(
    "--every", type=click.IntRange(min=1), default=_EVERY, show_default=True, help="Seconds between two looks."
)
def run(client: Path, once: bool, every: int) -> None:
    """Take part in every federation agreed to.

    CLIENT is a client.toml with `state`, and with `parent` in every agreement. All connections go out; no inbox is
    needed. Interrupted at any point, the same command goes on. Exit status 0 once every federation is finished (with
    --once: if nothing failed), 1 if one was refused, 130 after Ctrl-C, 143 after SIGTERM.
    """
    logging.basicConfig(format="%(asctime)s %(message)s")
    for package in ("client", "fedbucket"):
        logging.getLogger(package).setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _terminated)
    with plain_errors():
        try:
            with tempfile.TemporaryDirectory() as data:
                well = _participate(client, Path(data), once, every)
        except _Terminated:
            raise SystemExit(_TERMINATED) from None
        if not well:
            raise SystemExit(1)


def _participate(client: Path, data: Path, once: bool, every: int) -> bool:
    settings = read_client(client)
    if not settings.agreement:
        raise SettingsError(str(client), ["agreement: expected at least one: a federation to take part in"])
    own = deployed(settings, client.resolve().parent, data, str(client), is_function=False)
    participation = Participation(own, alone=not once)
    return participation.look() if once else participation.go_on(every)


class _Terminated(KeyboardInterrupt):
    """SIGTERM has come. For a SystemExit a task would be blamed that was at work just then."""


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    click.echo("terminated; the same command goes on from here", err=True)
    raise _Terminated
