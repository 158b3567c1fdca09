"""Function hosts: processes on this machine that serve a function folder, as the clouds do.

    with gcp_function(Path("gcp_function/client"), "on_object", {"CLIENT_ID": "hospital-a"}, Path("a.log")) as host: ...

Google's is its functions-framework on gunicorn, as in Cloud Run; Azure's is ours around Microsoft's engine. What they
print goes to the end of a log file. They end with whoever started them, however it ends.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fedbucket.emulators.ports import free_port, wait_for

_HERE = Path(__file__).parent


class Host:
    """One process on one port, that may be killed and started again.

    Args:
        program: what Python runs, with {port} for the port.
        folder: the function folder, also the process's working directory.
        environment: variables beyond this process's own.
        log: the file to which all that is printed is appended.
        instances: how many requests are handled at the same time.
        python: the interpreter; by default the one that runs this.

    Attributes:
        name: what it is called in logs: its log's name.
    """

    def __init__(
        self,
        program: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        instances: int = 1,
        python: Path | None = None,
    ) -> None:
        self.name = log.stem
        self.folder = folder.resolve()
        self.port = free_port()
        self.instances = instances
        runner = (str(python or sys.executable), "-P", str(_HERE / "until_end_of_input.py"))
        self._command = [*runner, *(word.format(port=self.port) for word in program)]
        self._environment = {"PYTHONUNBUFFERED": "1", **environment}  # a killed process has logged what it printed
        self.log = log.resolve()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, which is also its group's; None where it does not run."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process; return when it answers.

        Raises:
            RuntimeError: it runs, or it ended: the log's last lines say why.
        """
        if self._process is not None:
            raise RuntimeError(f"the host of {self.folder} runs: kill it before it is started again")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # killed with its workers, and by no interrupt meant for us
            )
        try:
            wait_for(self._process, self.port, f"the host of {self.folder}")
        except RuntimeError as error:
            self.kill()
            last = self.log.read_text(errors="replace").splitlines()[-15:]
            raise RuntimeError("\n".join([f"{error}; the end of {self.log}:", *last])) from None

    def kill(self) -> None:
        """`kill -9` the process and all that it started; nothing where it does not run."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):  # it has ended by itself, and nothing is left of it
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None

    def restart(self) -> None:
        """Kill the process and start it again, on the same port."""
        self.kill()
        self.start()


@contextmanager
def gcp_function(
    folder: Path,
    target: str,
    environment: Mapping[str, str],
    log: Path,
    instances: int = 1,
    python: Path | None = None,
) -> Iterator[Host]:
    """Run one function of `folder`/main.py as Cloud Run does: any request to its port calls it.

    Args:
        target: the function's name; its decorator (`cloud_event`, `http`) says what it is called with.
        instances: processes, each of which handles one request at a time, as is Cloud Run functions' default.

    Raises:
        RuntimeError: it did not start.
    """
    cloud_run = {
        "FUNCTION_TARGET": target,
        "K_SERVICE": target,
        "LOG_EXECUTION_ID": "true",  # each printed line becomes JSON, as there
        "WORKERS": str(instances),
        "THREADS": "1",
    }
    program = ("functions_framework", "--host", "127.0.0.1", "--port", "{port}", "--source", "main.py")
    with _running(Host(program, folder, {**cloud_run, **environment}, log, instances, python)) as host:
        yield host


@contextmanager
def azure_function(
    folder: Path, environment: Mapping[str, str], log: Path, python: Path | None = None
) -> Iterator[Host]:
    """Run the function app of `folder`/function_app.py: its queue triggers and timers; see `azure_host.py`.

    Raises:
        RuntimeError: it did not start: its functions could not be indexed.
    """
    program = (str(_HERE / "azure_host.py"), "{port}")
    azure = {"FUNCTIONS_WORKER_RUNTIME": "python", "AzureWebJobsScriptRoot": str(folder.resolve())}
    with _running(Host(program, folder, {**azure, **environment}, log, python=python)) as host:
        yield host


@contextmanager
def _running(host: Host) -> Iterator[Host]:
    host.start()
    try:
        yield host
    finally:
        host.kill()
