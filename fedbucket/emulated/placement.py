"""Who runs where, in which buckets, and by which settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exchange.errors import SettingsError
from exchange.spec import ClientSettings, FederationSettings, ParentSettings, validate
from exchange.stores import is_key
from fedbucket.emulators import ACCOUNT
from fedbucket.local.folder import FederationFolder

Cloud = Literal["gcp", "azure"]
Place = Literal["gcp", "azure", "own hardware"]
_SCHEMES = {"gcp": "gs://", "azure": f"az://{ACCOUNT}/", "own hardware": "s3://"}
TIME_LIMIT = 60  # seconds of a function: here a round takes one, and who is killed is not waited for any longer


@dataclass(frozen=True)
class Placement:
    """The parent in one cloud, the last client on its own hardware, the others in the two clouds by turns."""

    federation: FederationFolder
    parent: Cloud

    @property
    def places(self) -> dict[str, Place]:
        """Where each client runs."""
        clouds: list[Place] = ["gcp", "azure"]
        *others, last = self.federation.settings.roster
        return {client: clouds[number % 2] for number, client in enumerate(others)} | {last: "own hardware"}

    @property
    def parent_bucket(self) -> str:
        """The URL of the parent bucket."""
        return _SCHEMES[self.parent] + "parent"

    def inbox(self, client: str) -> str | None:
        """The URL of the client's bucket for tickets; on its own hardware it has none."""
        return None if self.places[client] == "own hardware" else self._bucket(client, "inbox")

    def state(self, client: str) -> str:
        """The URL of the client's private state."""
        return self._bucket(client, "state")

    def data(self, client: str) -> str:
        """The URL of the bucket with the client's data."""
        return self._bucket(client, "data")

    def buckets(self) -> Iterator[str]:
        """Yield the URLs of all buckets."""
        yield self.parent_bucket
        for client in self.places:
            yield from filter(None, (self.inbox(client), self.state(client), self.data(client)))

    def settings(self) -> FederationSettings:
        """Return what the parent publishes here: the federation's settings with these inboxes."""
        content = self.federation.settings.model_dump(mode="json")
        for entry in content["client"]:
            entry["inbox"] = self.inbox(entry["id"])
        return validate(FederationSettings, content, "federation.toml")

    def parent_settings(self) -> ParentSettings:
        """Return what the parent's functions find in their environment."""
        return ParentSettings(bucket=self.parent_bucket, time_limit=TIME_LIMIT)

    def client_settings(self, client: str, published: FederationSettings) -> ClientSettings:
        """Return what a client's functions find in their environment: its own settings, in these buckets."""
        own = self.federation.clients[client]
        agreement = own.agreement_on(published.name)
        if agreement is None:
            raise SettingsError(f"{client}.toml", [f"agreement: expected one on {published.name}"])
        pinned = {"parent": self.parent_bucket, "settings_sha256": published.sha256, "task": Path(agreement.task).name}
        data = f"{self.data(client)}/{self.data_file(client).name}" if self.data_file(client).exists() else own.data
        here = {"data": data, "state": self.state(client), "inbox": self.inbox(client), "time_limit": TIME_LIMIT}
        return own.model_copy(update={**here, "agreement": (agreement.model_copy(update=pinned),)})

    def data_file(self, client: str) -> Path:
        """The client's data, a file or a folder; need not exist, where `data` means something else to the task."""
        return (self.federation.client_folder / self.federation.clients[client].data).resolve()

    def data_objects(self, client: str) -> Iterator[tuple[str, Path]]:
        """Yield (key, file) for all of the client's data."""
        root = self.data_file(client)
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        for path in files:
            key = path.relative_to(root.parent).as_posix()
            if not is_key(key):
                raise SettingsError(f"{client}.toml", [f"data: {key!r} cannot be an object's key: rename the file"])
            yield key, path

    def task(self, client: str) -> Path:
        """The file of the client's task."""
        agreement = self.federation.clients[client].agreement_on(self.federation.settings.name)
        return (self.federation.client_folder / (agreement.task if agreement else "")).resolve()

    def _bucket(self, client: str, what: str) -> str:
        return f"{_SCHEMES[self.places[client]]}{what}-{client}"
