"""`az://account/container[/prefix]`: Azure Blob Storage, by azure-storage-blob.

Credentials: azure-identity's DefaultAzureCredential. AZURE_STORAGE_CONNECTION_STRING is used instead for the account
that it names (Azurite, sovereign clouds, access by key); one without a key or a signature, as
`AccountName=a;BlobEndpoint=https://a.blob.core.chinacloudapi.cn`, sets the endpoint alone. A version is an ETag.
"""

import base64
import os
import uuid
from collections.abc import Mapping
from typing import IO, Any, cast

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobBlock, BlobPrefix, BlobServiceClient

from exchange.errors import StoreError
from exchange.stores.cloud import CloudStore, Entry, Page
from exchange.stores.parts import PART, Sink, Upload
from exchange.stores.patience import CONNECT, READ, Fault, date_of

_ONLY_NEW: dict[str, Any] = {"match_condition": MatchConditions.IfMissing}
_CLIENT: dict[str, Any] = {
    "retry_total": 0,
    "connection_timeout": CONNECT,
    "read_timeout": READ,
    "max_single_put_size": 5000 * 2**20,  # what it is given is one Put Blob: never blocks that it names by index
    "max_single_get_size": PART,
    "max_chunk_get_size": PART,
}


class AzureStore(CloudStore):
    """A container of Azure Blob Storage."""

    taken = frozenset({412, "BlobAlreadyExists", "UnauthorizedBlobOverwrite"})
    faults = (AzureError, OSError)
    single = 64 * 2**20  # one Put Blob needs the right to add; blocks need the right to write, which may overwrite

    def __init__(self, account: str, container: str, prefix: str = "") -> None:
        super().__init__(f"az://{account}/{container}", prefix)
        self._container = self._try("", lambda: _connect(account).get_container_client(container), StoreError)

    def _fault(self, error: Exception) -> Fault:
        if not isinstance(error, HttpResponseError):
            dropped = isinstance(error, ServiceRequestError | ServiceResponseError | OSError)
            return Fault(0 if dropped else 400, type(error).__name__)
        code = getattr(error, "error_code", None) or type(error).__name__
        if code == "InvalidBlockList":  # a commit or a put of another writer has thrown our blocks away
            return Fault(404, code)
        status = 401 if isinstance(error, ClientAuthenticationError) else error.status_code
        return Fault(status or 0, str(getattr(code, "value", code)))

    def _put(self, name: str, data: bytes, mark: str) -> str:
        blob = self._container.get_blob_client(name)
        try:
            return _version(blob.upload_blob(data, metadata={"mark": mark}, **_ONLY_NEW)["etag"])
        except ResourceExistsError:
            if blob.exists():
                raise
        # Blocks of a writer that died may hold the name for a week against a Put Blob, but not against other blocks.
        blocks = _Blocks(blob, mark)
        blocks.send(data)
        return blocks.finish()

    def _head(self, name: str) -> Entry:
        clock = _Clock()
        found = self._container.get_blob_client(name).get_blob_properties(raw_response_hook=clock)
        return _entry(found, clock.now, (found.metadata or {}).get("mark", ""))

    def _fetch(self, name: str, offset: int, buffer: memoryview, version: str | None) -> int:
        pinned: dict[str, Any] = {}
        if version is not None:
            pinned = {"etag": f'"{version}"', "match_condition": MatchConditions.IfNotModified}
        sink, blob = Sink(buffer), self._container.get_blob_client(name)
        blob.download_blob(offset, len(buffer), **pinned).readinto(cast("IO[bytes]", sink))
        return sink.filled

    def _page(self, prefix: str, delimiter: str, token: str | None) -> Page:
        clock = _Clock()
        listing: Any
        if delimiter:
            listing = self._container.walk_blobs(prefix, delimiter=delimiter, raw_response_hook=clock)
        else:
            listing = self._container.list_blobs(prefix, raw_response_hook=clock)
        pages = listing.by_page(token)
        found = list(next(pages, ()))
        entries = [_entry(item, clock.now) for item in found if not isinstance(item, BlobPrefix)]
        return Page(entries, [item.name for item in found if isinstance(item, BlobPrefix)], pages.continuation_token)

    def _remove(self, name: str) -> None:
        self._container.delete_blob(name)

    def _upload(self, name: str, size: int, mark: str) -> Upload:
        return _Blocks(self._container.get_blob_client(name), mark)


class _Blocks:
    """Blocks under random names, so that two writers of one blob never mix; uncommitted ones are dropped in a week."""

    def __init__(self, blob: Any, mark: str) -> None:
        self._blob, self._mark, self._ids = blob, mark, list[str]()

    def send(self, part: bytes) -> None:
        block = base64.b64encode(uuid.uuid4().bytes).decode()
        self._blob.stage_block(block, part)
        self._ids.append(block)

    def finish(self) -> str:
        blocks = [BlobBlock(each) for each in self._ids]
        return _version(self._blob.commit_block_list(blocks, metadata={"mark": self._mark}, **_ONLY_NEW)["etag"])

    def abort(self) -> None:
        """Nothing to do: to take back uncommitted blocks, one would have to commit."""


class _Clock:
    """Keeps the headers of the last answer."""

    headers: Mapping[str, str]

    def __call__(self, answer: Any) -> None:
        self.headers = answer.http_response.headers

    @property
    def now(self) -> float:
        return date_of(self.headers)


def _connect(account: str) -> BlobServiceClient:
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")  # noqa: TID251 - an edge: as the other SDKs read theirs
    settings = dict(part.partition("=")[::2] for part in text.split(";"))
    if settings.get("AccountName") != account:
        url = f"https://{account}.blob.core.windows.net"
        return BlobServiceClient(url, DefaultAzureCredential(), **_CLIENT)
    keyless = not {"AccountKey", "SharedAccessSignature"} & set(settings)
    return BlobServiceClient.from_connection_string(text, DefaultAzureCredential() if keyless else None, **_CLIENT)


def _entry(found: Any, now: float, mark: str = "") -> Entry:
    return Entry(found.name, found.size, _version(found.etag), found.last_modified.timestamp(), now, mark)


def _version(etag: str) -> str:
    return etag.strip('"')
