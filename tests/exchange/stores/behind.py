"""What tests do to a cloud's bucket behind the protocol's back, each by the SDK and in its shortest words."""

from __future__ import annotations

from typing import Any, Protocol

import boto3
from azure.storage.blob import ContainerClient
from google.cloud import storage

from exchange.stores import open_store
from exchange.stores.azure import AzureStore


class Behind(Protocol):
    def make(self) -> None:
        """Make the bucket."""

    def replace(self, key: str, data: bytes) -> None:
        """Put an object there, whatever stood there before."""

    def clear(self) -> None:
        """Remove every object below the URL's prefix."""


def behind(url: str) -> Behind:
    scheme, _, path = url.partition("://")
    return {"gs": Gcs, "az": Azure, "s3": S3}[scheme](path)


class Gcs:
    def __init__(self, path: str) -> None:
        name, _, self.prefix = path.partition("/")
        self.client: Any = storage.Client()
        self.bucket = self.client.bucket(name)

    def make(self) -> None:
        self.bucket.create()

    def replace(self, key: str, data: bytes) -> None:
        self.bucket.blob(f"{self.prefix}/{key}".lstrip("/")).upload_from_string(data)

    def clear(self) -> None:
        for blob in self.client.list_blobs(self.bucket, prefix=f"{self.prefix}/", versions=True):
            blob.delete()


class S3:
    def __init__(self, path: str) -> None:
        name, _, self.prefix = path.partition("/")
        self.bucket: Any = boto3.Session().resource("s3").Bucket(name)

    def make(self) -> None:
        self.bucket.create()

    def replace(self, key: str, data: bytes) -> None:
        self.bucket.put_object(Key=f"{self.prefix}/{key}".lstrip("/"), Body=data)

    def clear(self) -> None:
        self.bucket.object_versions.filter(Prefix=f"{self.prefix}/").delete()
        self.bucket.objects.filter(Prefix=f"{self.prefix}/").delete()


class Azure:
    def __init__(self, path: str) -> None:
        account, container, *rest = path.split("/")
        self.prefix = "/".join(rest)
        store = open_store(f"az://{account}/{container}")
        assert isinstance(store, AzureStore)
        self.container: ContainerClient = store._container

    def make(self) -> None:
        self.container.create_container()

    def replace(self, key: str, data: bytes) -> None:
        self.container.upload_blob(f"{self.prefix}/{key}".lstrip("/"), data, overwrite=True)

    def clear(self) -> None:
        for blob in self.container.list_blobs(f"{self.prefix}/"):
            self.container.delete_blob(blob, delete_snapshots="include")
