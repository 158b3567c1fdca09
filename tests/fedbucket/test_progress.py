"""What a person sees of a run while it goes on."""

import fcntl
import os
import struct
import termios
from pathlib import Path

from fedbucket.local.progress import Progress


def test_the_live_line_is_no_longer_than_the_terminal_is_wide() -> None:
    ours, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
    with os.fdopen(ours, "rb", buffering=0) as ours_, os.fdopen(terminal, "w") as out:
        progress = Progress(out, 20, [f"client-{number:02d}" for number in range(10)])
        progress.evaluated(0, {"mse": 0.25, "mae": 0.5})
        progress.answered(1, {"client-01"})
        drawn = ours_.read(4096).decode()
    assert drawn == "\r\x1b[K" + "round 1 (2/20)  ○●○○○○○○○○ 1/1"[:29]


def test_metrics_are_shown_where_accuracy_is_none_of_them(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as out:
        progress = Progress(out, 2, ["alder"])
        progress.evaluated(0, {"mse": 0.25, "mae": 0.5, "r2": 0.1})
        progress.evaluated(1, {"accuracy": 0.75, "auc": 0.5})
        out.seek(0)
        assert out.read() == "round 0 (1/2)  mse 0.250  mae 0.500\nround 1 (2/2)  accuracy 0.750\n"
