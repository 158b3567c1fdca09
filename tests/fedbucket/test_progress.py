"""What a person sees of a run on a terminal, and what a log file gets."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TextIO

import pytest

from fedbucket.local.progress import Progress

CLIENTS = [f"client-{number:02d}" for number in range(1, 11)]


@contextmanager
def terminal(columns: int) -> Iterator[tuple[TextIO, int]]:
    """A terminal so wide: what a program writes to, and where a person looks."""
    looking, written = pty.openpty()
    fcntl.ioctl(written, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        with os.fdopen(written, "w") as out:
            yield out, looking
    finally:
        os.close(looking)


def shown(columns: int) -> str:
    """What is drawn at the 13th of 40 rounds, after all ten clients have answered."""
    with terminal(columns) as (out, looking):
        progress = Progress(out, 40, CLIENTS)
        progress.evaluated(11, {"accuracy": 0.788})
        progress.answered(12, CLIENTS)
        return os.read(looking, 10_000).decode()


@pytest.mark.parametrize("columns", [12, 20, 40, 60, 80, 200])
def test_the_live_line_never_wraps_so_that_the_next_draws_over_it(columns: int) -> None:
    for line in re.split(r"\r\x1b\[K", shown(columns)):
        assert len(line) < columns


def test_a_wide_terminal_shows_who_has_answered_and_a_narrow_one_how_many() -> None:
    assert "round 12 (13/40)  ●●●●●●●●●● 10/10 answered  accuracy 0.788" in shown(80)
    assert shown(40).endswith("round 12 (13/40)  10/10 answered")


def test_a_terminal_that_does_not_know_its_size_gets_the_whole_line() -> None:
    assert "●●●●●●●●●● 10/10 answered  accuracy 0.788" in shown(0)


def test_what_is_no_terminal_gets_a_line_a_round() -> None:
    out = StringIO()
    progress = Progress(out, 40, CLIENTS)
    progress.answered(0, CLIENTS)
    progress.evaluated(0, {"accuracy": 0.5})
    assert re.fullmatch(r"round 0 \(1/40\)  accuracy 0\.500  \d+:\d\d left\n", out.getvalue())


WARNS = "import logging; from fedbucket.local.progress import *; log_beside_the_line(); logging.warning('a withdrawal')"


def test_a_warning_on_a_terminal_is_written_over_the_live_line_and_not_behind_it() -> None:
    with terminal(80) as (out, looking):
        subprocess.run([sys.executable, "-c", WARNS], stderr=out, check=True, timeout=60)
        assert os.read(looking, 10_000).decode() == "\r\x1b[Ka withdrawal\r\n"


def test_a_warning_in_a_log_file_is_the_warning_alone() -> None:
    done = subprocess.run([sys.executable, "-c", WARNS], capture_output=True, check=True, timeout=60)
    assert done.stderr == b"a withdrawal\n"


def test_metrics_are_shown_where_accuracy_is_none_of_them() -> None:
    out = StringIO()
    progress = Progress(out, 2, CLIENTS)
    progress.evaluated(0, {"mse": 0.25, "mae": 0.5, "r2": 0.1})
    progress.evaluated(1, {"accuracy": 0.75, "auc": 0.5})
    assert out.getvalue() == "round 0 (1/2)  mse 0.250  mae 0.500\nround 1 (2/2)  accuracy 0.750\n"
