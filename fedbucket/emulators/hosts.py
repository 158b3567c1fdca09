"""Function hosts: processes on this machine that serve a function folder, as the clouds do.

    with gcp_function(Path("gcp_function/client"), "on_object", {"CLIENT_ID": "hospital-a"}, Path("a.log")) as host: ...

Google's is its functions-framework on gunicorn, as in Cloud Run; Azure's is ours around Microsoft's engine. What they
print goes to the end of a log file. They end with whoever started them, however it ends.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedbucket.emulators.ports import free_port
from fedbucket.emulators.process import Process

_HERE = Path(__file__).parent


class Host(Process):
    """One function host on one port, that may be killed and started again.

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
        self.folder = folder.resolve()
        self.log = log.resolve()
        self.port = free_port()
        self.instances = instances
        command = until_end_of_input(*(word.format(port=self.port) for word in program), python=python)
        environment = {"PYTHONUNBUFFERED": "1", **environment}  # a killed process has logged what it printed
        super().__init__(log.stem, command, environment, self.port, self.folder, self.log)


def until_end_of_input(*program: str, python: Path | None = None) -> Sequence[str]:
    """Return the command that runs a program of Python, and ends with its standard input; see the file of that name."""
    return (str(python or sys.executable), "-P", str(_HERE / "until_end_of_input.py"), *program)


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
    with Host(program, folder, {**cloud_run, **environment}, log, instances, python) as host:
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
    with Host(program, folder, {**azure, **environment}, log, python=python) as host:
        yield host
