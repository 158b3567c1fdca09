"""Making a bucket: what an organisation does once, by hand or by Terraform, and never a function."""

import os

import boto3
from azure.storage.blob import BlobServiceClient

from exchange.stores import gcs


def make_bucket(url: str) -> None:
    """Make the bucket at `url` in the emulator that this process's environment names."""
    scheme, _, name = url.partition("://")
    if scheme == "gs":
        gcs.connect().create_bucket(name, project="emulator")
    elif scheme == "s3":
        boto3.client("s3").create_bucket(Bucket=name)
    else:
        account = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
        account.create_container(name.partition("/")[2])
