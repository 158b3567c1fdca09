"""What tests do to a cloud's bucket behind the protocol's back, each by the SDK and in its shortest words."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

from azure.storage.blob import ContainerClient

from exchange.stores import gcs, open_store, s3
from exchange.stores.azure import AzureStore


class Behind(Protocol):
    def make(self) -> None:
        """Make the bucket."""

    def replace(self, key: str, data: bytes) -> None:
        """Put an object there, whatever stood there before."""

    def clear(self) -> None:
        """Remove every object below the URL's prefix."""


@cache
def behind(url: str) -> Behind:
    scheme, _, path = url.partition("://")
    return {"gs": Gcs, "az": Azure, "s3": S3}[scheme](path)


class Gcs:
    def __init__(self, path: str) -> None:
        name, _, self.prefix = path.partition("/")
        self.client: Any = gcs.connect()
        self.bucket = self.client.bucket(name)

    def make(self) -> None:
        self.bucket.create(project="emulator")

    def replace(self, key: str, data: bytes) -> None:
        self.bucket.blob(f"{self.prefix}/{key}".lstrip("/")).upload_from_string(data)

    def clear(self) -> None:
        for blob in self.client.list_blobs(self.bucket, prefix=f"{self.prefix}/", versions=True):
            blob.delete()


class S3:
    def __init__(self, path: str) -> None:
        self.name, _, self.prefix = path.partition("/")
        self.client: Any = s3._connect()

    def make(self) -> None:
        self.client.create_bucket(Bucket=self.name)

    def replace(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=f"{self.prefix}/{key}".lstrip("/"), Body=data)

    def clear(self) -> None:
        for page in self.client.get_paginator("list_object_versions").paginate(
            Bucket=self.name, Prefix=f"{self.prefix}/"
        ):
            for each in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                self.client.delete_object(Bucket=self.name, Key=each["Key"], VersionId=each["VersionId"])


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
