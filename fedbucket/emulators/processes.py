"""The emulators of storage, each as a process."""

import base64
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from threading import Thread
from typing import IO, Any

from fedbucket.emulators.notifications import blob_created
from fedbucket.emulators.ports import free_port
from fedbucket.emulators.process import Process

ACCOUNT = "emulator"  # the storage account that Azurite plays
_AZURITE = Path(".cache/azurite/node_modules/azurite/dist/src/blob/main.js")  # where `make azurite` puts it
_TELLING_AZURITE = Path(__file__).with_name("azurite.js")

Created = Callable[[Mapping[str, Any]], None]
"""Told of each object when it has been created, from a thread of its own."""


class Emulator(Process):
    """A cloud's storage on one port.

    Args:
        tell: gets each line of JSON that it prints: one an object that was created.

    Attributes:
        environment: the variables by which the SDKs find it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        environment: Mapping[str, str],
        tell: Callable[[str], None],
        more: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"the emulator for {name}", command, more or {}, port)
        self.environment = environment
        self._tell = tell

    def start(self) -> None:
        super().start()
        assert self._process is not None
        _read(self._process.stdout, self._tell)


def s3_emulator() -> Emulator:
    """Return moto's server, one request at a time. It keeps nothing when it is killed."""
    port = free_port()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    found = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    return Emulator("s3", _ours("s3", port), port, {**found, **dict.fromkeys(names, "emulator")}, lambda line: None)


def gcs_emulator(created: Created | None = None, folder: Path | None = None) -> Emulator:
    """Return gcp-storage-emulator behind a guard that keeps the promises of Cloud Storage.

    Args:
        created: gets the resource of each object that was created or overwritten.
        folder: where objects are kept while it does not run; None keeps them in memory.
    """
    port = free_port()

    def tell(line: str) -> None:
        if created is not None:
            created(json.loads(line))

    return Emulator(
        "gcs", _ours("gcs", port, folder), port, {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}, tell
    )


def azure_emulator(created: Created | None = None, folder: Path | None = None) -> Emulator:
    """Return Azurite's blob service; raises FileNotFoundError where there is none.

    Args:
        created: gets the Event Grid event of each blob that was created or overwritten.
        folder: where blobs are kept while it does not run; None keeps them in memory.
    """
    if (azurite := find_azurite()) is None:
        raise FileNotFoundError("Azurite is not installed: make azurite (it needs Node)")
    port, key = free_port(), base64.b64encode(os.urandom(32)).decode()

    def tell(line: str) -> None:
        if created is not None:
            created(blob_created(json.loads(line)))

    # Both flags are required: the SDK speaks a newer version of the protocol, and telemetry wants the network.
    flags = ("--disableTelemetry", "--skipApiVersionCheck")
    kept = ("--inMemoryPersistence",) if folder is None else ("--location", str(folder))
    command = ["node", str(_TELLING_AZURITE), str(azurite), "--blobPort", str(port), *flags, *kept]
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={endpoint};"
    found = {"AZURE_STORAGE_CONNECTION_STRING": text}
    return Emulator("azure", command, port, found, tell, {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"})


@contextmanager
def s3() -> Iterator[Mapping[str, str]]:
    """Have S3, in memory."""
    with s3_emulator() as running:
        yield running.environment


@contextmanager
def gcs(created: Created | None = None) -> Iterator[Mapping[str, str]]:
    """Have Cloud Storage, in memory; `created` as for `gcs_emulator`."""
    with gcs_emulator(created) as running:
        yield running.environment


@contextmanager
def azure(created: Created | None = None) -> Iterator[Mapping[str, str]]:
    """Have Azure's blob service, in memory; `created` as for `azure_emulator`, and what is raised."""
    with azure_emulator(created) as running:
        yield running.environment


def find_azurite() -> Path | None:
    """Return Azurite's blob service, if it and Node are there."""
    found = Path.cwd() / _AZURITE
    return found if shutil.which("node") and found.is_file() else None


def _ours(name: str, port: int, folder: Path | None = None) -> Sequence[str]:
    kept = [] if folder is None else [str(folder)]
    return [sys.executable, "-m", f"fedbucket.emulators.{name}", str(port), *kept]


def _read(output: IO[bytes] | None, tell: Callable[[str], None]) -> None:
    """Have a thread read what a process prints, to its end: a full pipe would stop an emulator in the middle of it."""

    def read(lines: IO[bytes]) -> None:
        with TextIOWrapper(lines) as texts:
            for line in texts:
                _tell(line, tell)

    Thread(target=read, args=[output], daemon=True).start()


def _tell(line: str, tell: Callable[[str], None]) -> None:
    if not line.startswith("{"):  # Azurite's greeting
        return
    try:
        tell(line)
    except Exception:
        logging.exception("nobody was told that an object was created: %s", line)
