"""A process that may be killed and started again, and ends with whoever started it, however that ends."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from fedbucket.emulators.ports import wait_for


class Process:
    """One process; as a context, it runs within.

    Args:
        name: what it is called in errors.
        command: a program that ends when its standard input does.
        environment: variables beyond this process's own.
        port: where it listens, each time that it is started; None for a process that nobody calls.
        folder: its working directory; this process's if None.
        log: the file to which all that it prints is appended; if None, its standard output is a pipe, to be read.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        port: int | None = None,
        folder: Path | None = None,
        log: Path | None = None,
    ) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._port = port
        self._folder = folder
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int | None:
        """The process's id, which is also its group's; None where it does not run."""
        return self._process.pid if self._process is not None else None

    @property
    def ended(self) -> int | None:
        """The exit status of a process that has ended by itself; None where it runs, or was killed here."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start the process; return when it listens.

        Raises:
            RuntimeError: it runs, or it ended: the log's last lines say why.
        """
        if self._process is not None:
            raise RuntimeError(f"{self.name} runs: kill it before it is started again")
        self._process = self._popen()
        try:
            if self._port is not None:
                wait_for(self._process, self._port, self.name)
        except RuntimeError as error:
            self.kill()
            last = self._log.read_text(errors="replace").splitlines()[-15:] if self._log else []
            raise RuntimeError(
                "\n".join([f"{error}; the end of {self._log}:", *last] if last else [str(error)])
            ) from None

    def kill(self) -> None:
        """`kill -9` the process and all that it started; nothing where it does not run."""
        if self._process is None:
            return
        self.signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None

    def restart(self) -> None:
        """Kill the process and start it again, on the same port."""
        self.kill()
        self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all that it started; nothing where it does not run."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # it has ended by itself, and nothing is left of it
                os.killpg(self._process.pid, number)

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        return "\n".join([f"; the end of {self._log}:", *self._log.read_text(errors="replace").splitlines()[-15:]])

    def _popen(self) -> "subprocess.Popen[bytes]":
        output = self._log.open("ab") if self._log is not None else None
        try:
            return subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE,
                stdout=output if output is not None else subprocess.PIPE,
                stderr=output,
                start_new_session=True,  # killed with all that it started, and by no interrupt meant for us
            )
        finally:
            if output is not None:
                output.close()
