"""Starting and stopping emulators."""

import base64
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ACCOUNT = "emulator"  # the storage account that Azurite plays
_PATIENCE = 60.0  # seconds until an emulator must answer: two busy cores take ten
_AZURITE = Path(".cache/azurite/node_modules/azurite/dist/src/blob/main.js")  # where `make azurite` puts it
_UNTIL_END_OF_INPUT = "process.stdin.resume().on('end', () => process.exit(0)); require(process.argv[1])"


@contextmanager
def s3() -> Iterator[Mapping[str, str]]:
    """moto's server, one request at a time."""
    with _ours("s3") as url:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        yield {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1", **dict.fromkeys(names, "emulator")}


@contextmanager
def gcs() -> Iterator[Mapping[str, str]]:
    """gcp-storage-emulator behind a guard that keeps the promises of Cloud Storage."""
    with _ours("gcs") as url:
        yield {"STORAGE_EMULATOR_HOST": url}


@contextmanager
def azure() -> Iterator[Mapping[str, str]]:
    """Azurite's blob service; raises FileNotFoundError where there is none."""
    if (azurite := find_azurite()) is None:
        raise FileNotFoundError("Azurite is not installed: make azurite (it needs Node)")
    port, key = _free_port(), base64.b64encode(os.urandom(32)).decode()
    # Both flags are required: the SDK speaks a newer version of the protocol, and telemetry wants the network.
    flags = ("--silent", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck")
    command = ["node", "-e", _UNTIL_END_OF_INPUT, str(azurite), "--blobPort", str(port), *flags]
    with _process(command, {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}) as process:
        _wait_for(process, port)
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={endpoint};"
        yield {"AZURE_STORAGE_CONNECTION_STRING": text}


def find_azurite() -> Path | None:
    """Return Azurite's blob service, if it and Node are there."""
    found = Path.cwd() / _AZURITE
    return found if shutil.which("node") and found.is_file() else None


@contextmanager
def _ours(name: str) -> Iterator[str]:
    with _process([sys.executable, "-m", f"fedbucket.emulators.{name}"], {}) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"the emulator for {name} did not start: pip install 'fedbucket[emulators]'")
        yield url


@contextmanager
def _process(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that ends when its standard input does, so that it never outlives this one."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _wait_for(process: subprocess.Popen[str], port: int) -> None:
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("Azurite did not start")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
