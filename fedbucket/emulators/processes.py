"""Starting and stopping the emulators of storage."""

import base64
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import IO, Any

from fedbucket.emulators.notifications import blob_created
from fedbucket.emulators.ports import free_port, wait_for

ACCOUNT = "emulator"  # the storage account that Azurite plays
_AZURITE = Path(".cache/azurite/node_modules/azurite/dist/src/blob/main.js")  # where `make azurite` puts it
_TELLING_AZURITE = Path(__file__).with_name("azurite.js")

Created = Callable[[Mapping[str, Any]], None]
"""Told of each object when it has been created, from a thread of its own."""


@contextmanager
def s3() -> Iterator[Mapping[str, str]]:
    """moto's server, one request at a time."""
    with _ours("s3") as url:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        yield {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1", **dict.fromkeys(names, "emulator")}


@contextmanager
def gcs(created: Created | None = None) -> Iterator[Mapping[str, str]]:
    """gcp-storage-emulator behind a guard that keeps the promises of Cloud Storage.

    Args:
        created: gets the resource of each object that was created or overwritten.
    """
    with _ours("gcs", lambda line: created(json.loads(line)) if created else None) as url:
        yield {"STORAGE_EMULATOR_HOST": url}


@contextmanager
def azure(created: Created | None = None) -> Iterator[Mapping[str, str]]:
    """Azurite's blob service; raises FileNotFoundError where there is none.

    Args:
        created: gets the Event Grid event of each blob that was created or overwritten.
    """
    if (azurite := find_azurite()) is None:
        raise FileNotFoundError("Azurite is not installed: make azurite (it needs Node)")
    port, key = free_port(), base64.b64encode(os.urandom(32)).decode()
    # Both flags are required: the SDK speaks a newer version of the protocol, and telemetry wants the network.
    flags = ("--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck")
    command = ["node", str(_TELLING_AZURITE), str(azurite), "--blobPort", str(port), *flags]
    with _process(command, {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}) as process:
        wait_for(process, port, "Azurite")
        _read(process.stdout, lambda line: created(blob_created(json.loads(line))) if created else None)
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={endpoint};"
        yield {"AZURE_STORAGE_CONNECTION_STRING": text}


def find_azurite() -> Path | None:
    """Return Azurite's blob service, if it and Node are there."""
    found = Path.cwd() / _AZURITE
    return found if shutil.which("node") and found.is_file() else None


@contextmanager
def _ours(name: str, tell: Callable[[str], None] = lambda line: None) -> Iterator[str]:
    with _process([sys.executable, "-m", f"fedbucket.emulators.{name}"], {}) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"the emulator for {name} did not start: pip install 'fedbucket[emulators]'")
        _read(process.stdout, tell)
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
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _read(output: IO[str] | None, tell: Callable[[str], None]) -> None:
    """Have a thread read what a process prints, to its end: a full pipe would stop an emulator in the middle of it."""

    def read(lines: IO[str]) -> None:
        with lines:
            for line in lines:
                _tell(line, tell)

    Thread(target=read, args=[output], daemon=True).start()


def _tell(line: str, tell: Callable[[str], None]) -> None:
    if not line.startswith("{"):  # Azurite's greeting
        return
    try:
        tell(line)
    except Exception:
        logging.exception("nobody was told that an object was created: %s", line)
