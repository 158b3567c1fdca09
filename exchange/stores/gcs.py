"""`gs://bucket[/prefix]`: Google Cloud Storage, by google-cloud-storage.

Credentials: an identity of the settings, or else Application Default Credentials. An emulator: STORAGE_EMULATOR_HOST
(then without credentials). Another universe (a sovereign cloud): GOOGLE_CLOUD_UNIVERSE_DOMAIN. A version is a
generation.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, OAuthError, TransportError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from exchange.errors import StoreError, StoreUnavailable, VersionMismatch
from exchange.spec import AzureInGoogle
from exchange.stores.cloud import CloudStore, Entry, Page
from exchange.stores.parts import Ranged, Upload
from exchange.stores.patience import CONNECT, READ, Fault, date_of

_ONCE: dict[str, Any] = {"retry": None, "timeout": (CONNECT, READ)}
_DROPPED = (HTTPError, OSError, TransportError, DataCorruption)
_FIELDS = "items(name,size,generation,timeCreated),prefixes,nextPageToken"


class GcsStore(CloudStore):
    """A bucket of Google Cloud Storage."""

    taken = frozenset({412})
    faults = (GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse, HTTPError, OSError)

    def __init__(self, bucket: str, prefix: str = "", identity: AzureInGoogle | None = None) -> None:
        super().__init__(f"gs://{bucket}", prefix)
        self._client: Any = self._try("", lambda: connect(identity), StoreError)
        self._bucket = self._client.bucket(bucket)
        self._http = self._client._http  # requests' session: the SDK shows no response headers, and we need `Date`
        self._http.mount("http://", HTTPAdapter(pool_maxsize=64))
        self._http.mount("https://", HTTPAdapter(pool_maxsize=64))
        self._http.hooks["response"].append(self._note)
        self._last = threading.local()

    def _note(self, response: Any, **_: object) -> None:
        self._last.headers = response.headers

    def _fault(self, error: Exception) -> Fault:
        response = getattr(error, "response", None)
        status = getattr(error, "code", None) or getattr(response, "status_code", None)
        # A token service's; no more is repeated.
        reason = re.match(r"Error code (\w+)", str(next(iter(error.args), "")))
        if not status:
            dropped = isinstance(error, _DROPPED) or (isinstance(error, OAuthError) and not reason)
            status = 0 if dropped else 401 if isinstance(error, GoogleAuthError) else 400
        if status == 403 and response is not None and _would_replace(response):
            status = 412
        found_none = type(error) is DefaultCredentialsError  # one derived from it says that some were refused
        login = "gcloud auth application-default login" if found_none else None
        return Fault(int(status), reason[1] if reason else type(error).__name__, login)

    def _put(self, name: str, data: bytes, mark: str) -> str:
        blob = self._bucket.blob(name)
        blob.metadata = {"mark": mark}
        blob.upload_from_string(data, "application/octet-stream", if_generation_match=0, checksum="crc32c", **_ONCE)
        return _generation(blob)

    def _head(self, name: str) -> Entry:
        blob = self._bucket.blob(name)
        blob.reload(**_ONCE)
        return self._entry(blob)

    def _entry(self, blob: Any) -> Entry:
        mark = (blob.metadata or {}).get("mark", "")
        return Entry(
            blob.name, blob.size, _generation(blob), blob.time_created.timestamp(), date_of(self._last.headers), mark
        )

    @contextmanager
    def _range(self, name: str, wanted: str, version: str | None) -> Iterator[Ranged]:
        if version is not None and not version.isdecimal():
            raise VersionMismatch(f"{self._key(name)} in {self.url}: {version!r} is no generation")
        url = f"{self._client.api_endpoint}/download/storage/v1{self._bucket.blob(name).path}"
        query = {"alt": "media"} | ({} if version is None else {"ifGenerationMatch": version})
        asked: dict[str, Any] = {"timeout": _ONCE["timeout"], "allow_redirects": False, "stream": True}
        with self._http.get(url, params=query, headers={"Range": wanted}, **asked) as answer:
            answer.raise_for_status()
            yield Ranged(answer.headers.get("Content-Range", ""), answer.raw)

    def _page(self, prefix: str, delimiter: str, token: str | None) -> Page:
        listing = self._client.list_blobs(
            self._bucket, prefix=prefix, delimiter=delimiter or None, page_token=token, fields=_FIELDS, **_ONCE
        )
        entries = [self._entry(blob) for blob in next(listing.pages, ())]
        return Page(entries, sorted(listing.prefixes), listing.next_page_token)

    def _remove(self, name: str) -> None:
        self._bucket.blob(name).delete(**_ONCE)

    def _upload(self, name: str, size: int, mark: str) -> Upload:
        blob = self._bucket.blob(name)
        blob.metadata = {"mark": mark}
        url = blob.create_resumable_upload_session(
            "application/octet-stream", size=size, if_generation_match=0, **_ONCE
        )
        return _Session(self._http, url, size)


def _would_replace(answer: Any) -> bool:
    """Tell whether a create was denied because an object is there: to replace it takes the right to delete it."""
    return answer.request.method != "DELETE" and b"storage.objects.delete" in answer.content


class _Session:
    """A resumable upload; one that is never finished is dropped by GCS after a week.

    By hand and not by `Blob.open`, which finishes the object when it is closed by an exception or a collected garbage.
    """

    def __init__(self, http: Any, url: str, size: int) -> None:
        self._http, self._url, self._size = http, url, size
        self._sent = 0
        self._there: int | None = 0  # bytes that the store has; None once an answer was lost: some may have arrived

    def send(self, part: bytes) -> None:
        end = self._sent + len(part)
        if self._there is None:
            self._there = self._request(f"bytes */{self._size}", b"")
        while (begin := self._there) < end:
            self._there = None
            self._there = self._request(f"bytes {begin}-{end - 1}/{self._size}", part[begin - self._sent :])
            if self._there <= begin:  # it may keep less than it was sent, but so it would go on for ever
                raise StoreUnavailable(f"an upload of {self._size} bytes: the store kept {self._there} of {end}")
        self._sent = end

    def finish(self) -> None:
        """Nothing is left to do: the last byte has created the object."""

    def abort(self) -> None:
        self._http.delete(self._url, timeout=(CONNECT, READ))

    def _request(self, content_range: str, data: bytes) -> int:
        """Return how many bytes the store has; all of them once it has created the object."""
        answer = self._http.put(
            self._url,
            data=data,
            headers={"Content-Range": content_range},
            timeout=(CONNECT, READ),
            allow_redirects=False,
        )
        if answer.status_code != 308:
            answer.raise_for_status()
            return self._size
        return int(answer.headers["Range"].rpartition("-")[2]) + 1 if "Range" in answer.headers else 0


def connect(identity: AzureInGoogle | None = None) -> Any:
    """Return the SDK's client, as this identity or else by Application Default Credentials."""
    client = storage.Client(project=None, credentials=_credential(identity))  # no call needs a project
    # Else it asks for the bucket's own metadata, in a thread: for traces, by a right that no function has.
    client._bucket_metadata_cache = None
    return client


def _credential(identity: AzureInGoogle | None) -> Any:
    if identity is None:
        return _own()
    from exchange.stores import azure_in_google  # imported here: without an identity Azure's package is not needed

    return azure_in_google.credential(identity.provider, identity.resource)


@cache
def _own() -> Any:
    """Return this process's own identity, one for all buckets: else each asks who it is, and for a token of its own."""
    return storage.Client(project=None)._credentials


def _generation(blob: Any) -> str:
    if blob.generation is None:  # a write on the condition "None" would be one without a condition
        raise StoreError(f"{blob.name}: the store told no generation")
    return str(blob.generation)
