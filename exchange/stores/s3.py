"""`s3://bucket[/prefix]`: Amazon S3 and what speaks its language, by boto3.

Credentials: boto3's own chain. An endpoint of one's own (MinIO, an emulator): AWS_ENDPOINT_URL, or `endpoint_url` in
~/.aws/config. The store must honour `If-None-Match: *` on PutObject and CompleteMultipartUpload; `make conformance`
tells. A version is an ETag: an object replaced by the very same bytes keeps it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ResponseStreamingError,
)
from urllib3.exceptions import HTTPError

from exchange.errors import StoreError
from exchange.stores.cloud import CloudStore, Entry, Page
from exchange.stores.parts import Ranged, Upload
from exchange.stores.patience import CONNECT, READ, Fault, date_of

_SETTINGS = Config(
    connect_timeout=CONNECT,
    read_timeout=READ,
    max_pool_connections=64,
    retries={"total_max_attempts": 1},
    request_checksum_calculation="when_required",  # the default sends trailers that older S3-compatible stores refuse
    response_checksum_validation="when_required",
)
_session = boto3.Session()  # one for all: it keeps what it has read of S3's description, 0.2 s of work
_making = Lock()  # a session is no thing to share among threads; the clients that it makes are
_DROPPED = (ConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError, HTTPError, OSError)


class S3Store(CloudStore):
    """A bucket of S3."""

    taken = frozenset({412})
    faults = (BotoCoreError, ClientError, HTTPError, OSError)

    def __init__(self, bucket: str, prefix: str = "") -> None:
        super().__init__(f"s3://{bucket}", prefix)
        self._bucket = bucket
        self._client: Any = self._try("", _connect, StoreError)

    def _fault(self, error: Exception) -> Fault:
        if isinstance(error, ClientError):
            code = error.response["Error"]["Code"]
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            # 409: another upload of this key is being decided. 400 RequestTimeout: the connection stood still.
            return Fault(0 if status == 409 or code == "RequestTimeout" else status, code)
        if isinstance(error, NoCredentialsError):
            return Fault(401, type(error).__name__, "aws configure")
        return Fault(0 if isinstance(error, _DROPPED) else 400, type(error).__name__)

    def _put(self, name: str, data: bytes, mark: str) -> str:
        answer = self._client.put_object(
            Bucket=self._bucket, Key=name, Body=data, IfNoneMatch="*", Metadata={"mark": mark}
        )
        return _version(answer)

    def _head(self, name: str) -> Entry:
        answer = self._client.head_object(Bucket=self._bucket, Key=name)
        mark = answer["Metadata"].get("mark", "")
        return Entry(name, answer["ContentLength"], _version(answer), _seconds(answer), _now(answer), mark)

    @contextmanager
    def _range(self, name: str, wanted: str, version: str | None) -> Iterator[Ranged]:
        pinned = {} if version is None else {"IfMatch": f'"{version}"'}
        answer = self._client.get_object(Bucket=self._bucket, Key=name, Range=wanted, **pinned)
        with answer["Body"] as body:
            yield Ranged(answer.get("ContentRange", ""), body)

    def _page(self, prefix: str, delimiter: str, token: str | None) -> Page:
        going_on = {"ContinuationToken": token} if token else {}
        answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, Delimiter=delimiter, **going_on)
        now = _now(answer)
        entries = [
            Entry(item["Key"], item["Size"], _version(item), _seconds(item), now) for item in answer.get("Contents", [])
        ]
        folders = [item["Prefix"] for item in answer.get("CommonPrefixes", [])]
        return Page(entries, folders, answer.get("NextContinuationToken"))

    def _remove(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=name)

    def _upload(self, name: str, size: int, mark: str) -> Upload:
        return _Multipart(self._client, {"Bucket": self._bucket, "Key": name}, mark)


class _Multipart:
    """A multipart upload; left behind by a process that died, it is cleared by the bucket's lifecycle rule."""

    def __init__(self, client: Any, where: dict[str, str], mark: str) -> None:
        self._client = client
        upload = client.create_multipart_upload(**where, Metadata={"mark": mark})["UploadId"]
        self._where = {**where, "UploadId": upload}
        self._parts: list[dict[str, object]] = []

    def send(self, part: bytes) -> None:
        number = len(self._parts) + 1
        answer = self._client.upload_part(**self._where, PartNumber=number, Body=part)
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})

    def finish(self) -> None:
        parts = {"Parts": self._parts}
        self._client.complete_multipart_upload(**self._where, MultipartUpload=parts, IfNoneMatch="*")

    def abort(self) -> None:
        self._client.abort_multipart_upload(**self._where)


def _connect() -> Any:
    with _making:
        return _session.client("s3", config=_SETTINGS)


def _version(answer: dict[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _seconds(answer: dict[str, Any]) -> float:
    return float(int(answer["LastModified"].timestamp()))  # whole ones: a listing tells more of them than a HEAD


def _now(answer: dict[str, Any]) -> float:
    return date_of(answer["ResponseMetadata"]["HTTPHeaders"])
