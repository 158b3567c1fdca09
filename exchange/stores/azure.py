"""`az://account/container[/prefix]`: Azure Blob Storage, by azure-storage-blob.

Credentials: an identity of the settings, or else azure-identity's DefaultAzureCredential, instead of which the account
that AZURE_STORAGE_CONNECTION_STRING names is opened by that (Azurite, sovereign clouds, access by key); one without a
key or a signature, as `AccountName=a;BlobEndpoint=https://a.blob.core.chinacloudapi.cn`, sets the endpoint alone. A
version is an ETag.
"""

import base64
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from functools import cache
from typing import Any

from azure.core import MatchConditions
from azure.core.credentials import TokenCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline import Pipeline
from azure.core.pipeline.policies import BearerTokenCredentialPolicy
from azure.core.pipeline.transport import HttpRequest, RequestsTransport
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobBlock, BlobPrefix, BlobServiceClient
from urllib3.exceptions import HTTPError

from exchange.errors import StoreError
from exchange.spec import GoogleInAzure
from exchange.stores.cloud import CloudStore, Entry, Page
from exchange.stores.parts import Ranged, Upload
from exchange.stores.patience import CONNECT, READ, Fault, date_of

_ONLY_NEW: dict[str, Any] = {"match_condition": MatchConditions.IfMissing}
_SCOPE = "https://storage.azure.com/.default"
_TIMEOUTS: dict[str, Any] = {"connection_timeout": CONNECT, "read_timeout": READ}
_CLIENT: dict[str, Any] = {
    **_TIMEOUTS,
    "retry_total": 0,
    "max_single_put_size": 5000 * 2**20,  # what it is given is one Put Blob: never blocks that it names by index
}


class AzureStore(CloudStore):
    """A container of Azure Blob Storage."""

    taken = frozenset({412, "BlobAlreadyExists", "UnauthorizedBlobOverwrite"})
    faults = (AzureError, HTTPError, OSError)
    single = 64 * 2**20  # one Put Blob needs the right to add; blocks need the right to write, which may overwrite

    def __init__(self, account: str, container: str, prefix: str = "", identity: GoogleInAzure | None = None) -> None:
        super().__init__(f"az://{account}/{container}", prefix)
        client = self._try("", lambda: _connect(account, _credential(identity)), StoreError)
        self._container = client.get_container_client(container)
        self._reader = _reader(self._container.credential)

    def _fault(self, error: Exception) -> Fault:
        if not isinstance(error, HttpResponseError):
            dropped = isinstance(error, ServiceRequestError | ServiceResponseError | HTTPError | OSError)
            return Fault(0 if dropped else 400, type(error).__name__)
        response: Any = error.response
        told = response.headers.get("x-ms-error-code") if response else None
        code = getattr(error, "error_code", None) or told or type(error).__name__
        if code == "InvalidBlockList":  # a commit or a put of another writer has thrown our blocks away
            return Fault(404, code)
        status = 401 if isinstance(error, ClientAuthenticationError) else error.status_code
        # Of nobody's answer, nor our own refusal of an identity, which has a code: there was nothing to show.
        found_none = code == ClientAuthenticationError.__name__ and not response
        return Fault(status or 0, str(getattr(code, "value", code)), "az login" if found_none else None)

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

    @contextmanager
    def _range(self, name: str, wanted: str, version: str | None) -> Iterator[Ranged]:
        headers = {
            "x-ms-range": wanted,
            "x-ms-version": self._container.api_version,
            "x-ms-date": formatdate(usegmt=True),
        }
        if version is not None:
            headers["If-Match"] = f'"{version}"'
        request = HttpRequest("GET", self._container.get_blob_client(name).url, headers)
        answer = self._reader.run(request, stream=True).http_response
        with answer.internal_response as response:  # requests' own
            if answer.status_code >= 400:
                raise HttpResponseError(response=answer)
            yield Ranged(answer.headers.get("Content-Range", ""), response.raw)

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


def _credential(identity: GoogleInAzure | None) -> TokenCredential | None:
    if identity is None:
        return None
    from exchange.stores import google_in_azure  # imported here: without an identity Google's package is not needed

    return google_in_azure.credential(identity.tenant, identity.client)


def _connect(account: str, credential: TokenCredential | None) -> BlobServiceClient:
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")  # noqa: TID251 - an edge: as the other SDKs read theirs
    settings = dict(part.partition("=")[::2] for part in text.split(";"))
    if settings.get("AccountName") != account:
        url = f"https://{account}.blob.core.windows.net"
        return BlobServiceClient(url, credential or _own(), **_CLIENT)
    if not credential and not {"AccountKey", "SharedAccessSignature"} & set(settings):
        credential = _own()
    return BlobServiceClient.from_connection_string(text, credential, **_CLIENT)


@cache
def _own() -> DefaultAzureCredential:
    """Return this process's own identity, one for all buckets: it keeps the token that each would else ask for."""
    return DefaultAzureCredential(**_TIMEOUTS)


def _reader(credential: Any) -> Pipeline[HttpRequest, Any]:
    """Return what sends a request authorised as the SDK does: a signature in the URL needs no more than that."""
    if hasattr(credential, "get_token"):
        credential = BearerTokenCredentialPolicy(credential, _SCOPE)
    return Pipeline(RequestsTransport(**_TIMEOUTS), [credential] if credential else [])


def _entry(found: Any, now: float, mark: str = "") -> Entry:
    return Entry(found.name, found.size, _version(found.etag), found.last_modified.timestamp(), now, mark)


def _version(etag: str) -> str:
    return etag.strip('"')
