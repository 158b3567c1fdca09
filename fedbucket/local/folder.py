"""Where things lie: a federation's folder (what people write) and a run's folder (what a run leaves).

demo/federation.toml          what the parties agree on
demo/clients/client-01.toml   one organisation's own settings; a file each
demo/task.py                  model and data, named by the clients' agreements
demo/local.toml               optional: what only a run on one machine has (a test set that no client holds)

runs/demo/buckets/parent/     the parent bucket, as plain files
runs/demo/buckets/inbox-client-01/    a client's bucket for tickets
runs/demo/private/client-01/  a client's private state
runs/demo/{summary.json,rounds.jsonl,model.safetensors,report.html}
"""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client import consent
from exchange.documents import Document
from exchange.errors import ConsentRefused, RunStopped, SettingsError
from exchange.spec import (
    ClientSettings,
    FederationSettings,
    TrainSettings,
    read_client,
    read_federation,
    read_toml,
    validate,
)
from exchange.stores.file import TEMPORARY, FileStore

_CLIENTS = "clients"


class LocalSettings(Document):
    """`local.toml`: what only a run on one machine has.

    Attributes:
        test: handed to the task's data(source, "test"): examples that no client holds, on which models are tried.
        split: how the examples were dealt out, in words, for the page.
        baselines: also train each client alone, and one model on all data, to convergence and without noise.
        baseline_train: how; as the federation trains, if None.
    """

    test: str | None = None
    split: str | None = None
    baselines: bool = True
    baseline_train: TrainSettings | None = None


@dataclass(frozen=True)
class FederationFolder:
    """A federation as its people wrote it."""

    path: Path
    settings: FederationSettings
    clients: dict[str, ClientSettings]
    local: LocalSettings

    @property
    def client_folder(self) -> Path:
        """Where the clients' settings lie; the paths in them are relative to it."""
        return self.path / _CLIENTS


@dataclass(frozen=True)
class RunFolder:
    """What a run leaves."""

    path: Path

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def rounds(self) -> Path:
        return self.path / "rounds.jsonl"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def baselines(self) -> Path:
        return self.path / "baselines.json"

    @property
    def data(self) -> Path:
        """Where data that lie in buckets are copied to."""
        return self.path / "data"

    @property
    def parent(self) -> FileStore:
        return FileStore(self.path / "buckets" / "parent")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the one process that runs here, and remove what an earlier one was writing when it died.

        Raises:
            RunStopped: another process runs here.
        """
        with (self.path / ".running").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when a process dies
            except BlockingIOError as error:
                raise RunStopped(
                    f"{self.path}: another process runs this federation; wait for it, or end it"
                ) from error
            for path in self.path.glob(f"*/*/{TEMPORARY}/*"):
                path.unlink()
            yield

    def inbox(self, client: str) -> FileStore:
        """The bucket for the tickets of `client`."""
        # "parent" is a legal client id: the prefix keeps its bucket apart.
        return FileStore(self.path / "buckets" / f"inbox-{client}")

    def state(self, client: str) -> FileStore:
        """The private state of `client`."""
        return FileStore(self.path / "private" / client)


def read_folder(federation: Path) -> FederationFolder:
    """Return the federation whose federation.toml is at `federation`.

    Raises:
        SettingsError: a file is not sound, or not one file is that of a client on the roster; every mistake is named.
        ConsentRefused: a client of the roster does not agree; those that do not are all named.
    """
    settings = read_federation(federation)
    folder = federation.resolve().parent
    files = {path: read_client(path) for path in sorted((folder / _CLIENTS).glob("*.toml"))}
    _refuse_other_than_one_file_each(folder / _CLIENTS, settings.roster, files)
    found = {client.id: _pinned(client, settings) for client in files.values()}
    _refuse_disagreement(folder / _CLIENTS, settings, found)
    local = folder / "local.toml"
    return FederationFolder(
        folder,
        settings,
        found,
        validate(LocalSettings, read_toml(local), str(local)) if local.exists() else LocalSettings(),
    )


def _refuse_other_than_one_file_each(folder: Path, roster: Sequence[str], files: Mapping[Path, ClientSettings]) -> None:
    mistakes = []
    for client in roster:
        names = [path.name for path, own in files.items() if own.id == client]
        if not names:
            mistakes.append(f'{client}: on the roster; expected a file {client}.toml with id = "{client}"')
        elif len(names) > 1:
            mistakes.append(f'{client}: expected one file with id = "{client}", got {" and ".join(names)}')
    if mistakes:
        raise SettingsError(str(folder), mistakes)


def _refuse_disagreement(folder: Path, settings: FederationSettings, clients: Mapping[str, ClientSettings]) -> None:
    """Raise ConsentRefused before a run begins: it would stop there, with a first model that cannot be changed."""
    refusals = []
    for client in settings.roster:
        try:
            consent.check(clients[client], settings.name, settings)
        except ConsentRefused as error:
            refusals.append(str(error))
    if refusals:
        raise ConsentRefused("\n".join([*refusals, f"what a client agrees to is in its file in {folder}"]))


def _pinned(client: ClientSettings, settings: FederationSettings) -> ClientSettings:
    """Agree to the settings as they are where nothing is pinned: here one person writes both."""
    agreements = [
        agreement.model_copy(update={"settings_sha256": agreement.settings_sha256 or settings.sha256})
        if agreement.federation == settings.name
        else agreement
        for agreement in client.agreement
    ]
    return client.model_copy(update={"agreement": tuple(agreements)})
