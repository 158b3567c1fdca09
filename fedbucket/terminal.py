"""What the commands share: plain words for mistakes, and the way to a run's folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from exchange.errors import FedbucketError, SettingsError

_INTERRUPTED = 130  # what a shell gives a program that Ctrl-C ended


@contextmanager
def plain_errors() -> Iterator[None]:
    """Say a user's mistake in words and exit with status 1; a traceback is for our own."""
    try:
        yield
    except (FedbucketError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("\ninterrupted; the same command goes on from here", err=True)
        raise SystemExit(_INTERRUPTED) from None


def run_path(run: str) -> Path:
    """Return the folder of a run, given that or its name under runs/; raises SettingsError."""
    for path in (Path(run), Path("runs") / run):
        if (path / "buckets").is_dir():
            return path.resolve()
    raise SettingsError(run, ["expected a run's folder, or the name of one under runs/"])
