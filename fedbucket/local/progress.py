"""One live line on a terminal; a line a round where there is none."""

import logging
import os
import sys
import time
from collections.abc import Collection, Sequence
from typing import TextIO

from exchange.records import Metrics

_REFRESH = 0.1  # seconds between two drawings of the line
_CLEAR = "\r\x1b[K"  # to the start of the line, and nothing more on it
_UNKNOWN = 1000  # columns
_METRICS = 2  # of which the line still has room, where accuracy is none of them
_DOTS = 20  # clients, of which each still has a dot of its own in the line


def log_beside_the_line() -> None:
    """Have this process's warnings, say, of a withdrawal, begin a line: not behind the live line."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{_CLEAR if sys.stderr.isatty() else ''}%(message)s"))
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)


class Progress:
    """Says how far a run has come.

    Args:
        out: where to; None says nothing.
        rounds: how many the settings allow.
        roster: all clients, in the order in which the line shows them.
    """

    def __init__(self, out: TextIO | None, rounds: int, roster: Sequence[str]) -> None:
        self._out = out
        self._live = out is not None and out.isatty()
        self._rounds = rounds
        self._roster = roster
        self._first: tuple[int, float] | None = None
        self._metrics: Metrics = {}
        self._drawn = 0.0

    def answered(self, round_: int, clients: Collection[str]) -> None:
        """So many clients have answered by now."""
        now = time.monotonic()
        self._first = self._first or (round_, now)
        if self._live and now - self._drawn > _REFRESH:
            self._drawn = now
            dots = "".join("●" if client in clients else "○" for client in self._roster)
            shown = f"{dots} " if len(dots) <= _DOTS else ""
            head = f"round {round_} ({round_ + 1}/{self._rounds})  "
            answered = f"{len(clients)}/{len(self._roster)} answered"
            tail = self._tail(round_, now)
            self._draw(f"{head}{shown}{answered}{tail}", f"{head}{answered}{tail}", f"{head}{answered}")

    def evaluated(self, round_: int, metrics: Metrics) -> None:
        """A round is over, and its model has these metrics on the test set."""
        self._metrics = metrics or self._metrics
        if not self._live:
            self._write(f"round {round_} ({round_ + 1}/{self._rounds}){self._tail(round_ + 1, time.monotonic())}\n")

    def say(self, text: str) -> None:
        """Say something once, on a line of its own (on a terminal, over the live line)."""
        if self._live:
            self._draw(text)
        else:
            self._write(f"{text}\n")

    def note(self, text: str) -> None:
        """Say something that is to stay."""
        self._write(f"{text}\n")

    def end(self) -> None:
        """Clear the live line."""
        if self._live:
            self._write(_CLEAR)

    def _draw(self, *lines: str) -> None:
        """Draw the first line that fits, else as much of the last as does: what wraps could not be drawn over."""
        columns = self._columns()
        self._write(f"{_CLEAR}{next((line for line in lines if len(line) <= columns), lines[-1][:columns])}")

    def _columns(self) -> int:
        """How wide a line may be; a terminal that has no size takes any."""
        size = os.get_terminal_size(self._out.fileno()).columns if self._out is not None else 0
        return size - 1 if size else _UNKNOWN  # a letter in the last column makes some terminals wrap

    def _tail(self, done: int, now: float) -> str:
        shown = {"accuracy": self._metrics["accuracy"]} if "accuracy" in self._metrics else self._metrics
        metrics = "".join(f"  {name} {value:.3f}" for name, value in [*shown.items()][:_METRICS])
        if self._first is None or done <= self._first[0]:
            return metrics
        left = (now - self._first[1]) / (done - self._first[0]) * (self._rounds - done)
        return f"{metrics}  {int(left) // 60}:{int(left) % 60:02d} left"

    def _write(self, text: str) -> None:
        if self._out is not None:
            self._out.write(text)
            self._out.flush()
