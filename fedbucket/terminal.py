"""What the commands share: plain words for mistakes, and the way to a run's folder or a parent bucket."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from exchange import keys
from exchange.errors import FedbucketError, SettingsError
from exchange.stores import PrunableStore, exists, open_store
from fedbucket.local.folder import RunFolder

_INTERRUPTED = 130  # what a shell gives a program that Ctrl-C ended


@contextmanager
def plain_errors() -> Iterator[None]:
    """Say a user's mistake in words and exit with status 1; a traceback is for our own."""
    try:
        yield
    except (FedbucketError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except BrokenPipeError:
        raise  # `… | head` has seen enough: click ends without a word
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        raise click.ClickException(said) from error
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would spoil the exit status
        click.echo("\ninterrupted; the same command goes on from here", err=True)
        raise SystemExit(_INTERRUPTED) from None


def run_path(run: str) -> Path:
    """Return the folder of a run, given that or its name under runs/; raises SettingsError."""
    for path in (Path(run), Path("runs") / run):
        if (path / "buckets").is_dir():
            return path.resolve()
    raise SettingsError(
        run,
        ["expected a run's folder, or the name of one under runs/; a bucket goes by its URL, a folder's by file:///…"],
    )


def parent_bucket(run: str, federation: str | None) -> tuple[PrunableStore, str]:
    """Return the parent bucket of a run's folder, or at a URL, and the name of the federation that is meant.

    Raises:
        SettingsError: no such run, no such federation, or none named where the bucket holds several.
    """
    store = open_store(run) if "://" in run else RunFolder(run_path(run)).parent
    folders = list(store.folders())
    found = [name for name in folders if federation in (None, name) and exists(store, str(keys.Settings(name)))]
    if len(found) > 1:
        raise SettingsError(run, [f"holds the federations {', '.join(found)}: name one with --federation"])
    if not found:
        raise SettingsError(run, [f"expected {federation or 'a federation'} in its parent bucket, found {folders}"])
    return store, found[0]
