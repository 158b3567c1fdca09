"""`az://`: what is Azure's alone. A stream of more than 64 MiB goes up as blocks; here, every stream does."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from exchange.errors import AlreadyExists
from exchange.spec import GoogleInAzure
from exchange.stores import google_in_azure, open_store, parts
from exchange.stores.azure import AzureStore
from tests.exchange.stores import test_contract as contract
from tests.exchange.stores.backends import BACKENDS, Bucket


@pytest.fixture
def bucket(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setattr(AzureStore, "single", 0)
    monkeypatch.setattr(parts, "PART", 2**18)
    with BACKENDS["azure"].open(tmp_path_factory.mktemp("azure")) as opened:
        yield opened


def half_way(bucket: Bucket, name: str) -> None:
    """Leave blocks behind, as a writer that died has."""
    store = bucket.store
    assert isinstance(store, AzureStore)
    store._upload(bucket.key(name), 2, "mark").send(b"x")


def test_blocks_keep_the_promises_of_a_stream(bucket: Bucket) -> None:
    contract.test_of_two_large_streams_one_wins_and_its_bytes_are_whole(bucket)


def test_of_many_streams_in_blocks_one_wins(bucket: Bucket) -> None:
    for attempt in range(3):
        key = bucket.key(f"race-{attempt}")
        data = [racer.to_bytes() * 300_000 for racer in range(10)]
        winners = contract.race(10, lambda racer, key=key, data=data: contract.stream(bucket.store, key, data[racer]))
        assert len(winners) == 1
        assert bucket.store.read(key) == data[winners[0]]


def test_blocks_left_behind_hold_no_name(bucket: Bucket) -> None:
    for name in ("created", "streamed"):
        half_way(bucket, name)
    assert bucket.listed() == []
    bucket.store.create(bucket.key("created"), b"data")
    contract.stream(bucket.store, bucket.key("streamed"), bytes(600_000))
    assert bucket.store.read(bucket.key("created")) == b"data"
    assert bucket.store.read(bucket.key("streamed")) == bytes(600_000)


def test_of_fifty_threads_one_creates_what_a_dead_writer_began(bucket: Bucket) -> None:
    half_way(bucket, "a")
    key = bucket.key("a")
    winners = contract.race(50, lambda racer: bucket.store.create(key, contract.contents[racer]))
    assert len(winners) == 1
    assert bucket.store.read(key) == contract.contents[winners[0]]


def test_a_writer_whose_blocks_were_thrown_away_has_lost(bucket: Bucket) -> None:
    data = bytes(600_000)
    with pytest.raises(AlreadyExists), bucket.store.writer(bucket.key("a"), len(data)) as out:
        write_and_lose(bucket, out, data)
    assert bucket.store.read(bucket.key("a")) == b"theirs"


def write_and_lose(bucket: Bucket, out: parts.Parts, data: bytes) -> None:
    out.write(data)
    bucket.store.create(bucket.key("a"), b"theirs")


def test_a_connection_string_is_used_for_its_own_account_only(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = "BlobEndpoint=https://mine.blob.core.chinacloudapi.cn"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountName=mine;{endpoint}")
    hosts = {}
    for account in ("mine", "theirs"):
        store = open_store(f"az://{account}/container")
        assert isinstance(store, AzureStore)
        hosts[account] = store._container.primary_hostname
    assert hosts == {"mine": "mine.blob.core.chinacloudapi.cn", "theirs": "theirs.blob.core.windows.net"}


def test_a_signature_in_the_connection_string_opens_a_bucket(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(part.partition("=")[::2] for part in os.environ["AZURE_STORAGE_CONNECTION_STRING"].split(";"))
    everything = AccountSasPermissions(read=True, write=True, create=True, add=True, list=True)
    kinds, until = ResourceTypes(container=True, object=True), datetime.now(UTC) + timedelta(days=1)
    signature = generate_account_sas(known["AccountName"], known["AccountKey"], kinds, everything, until)
    text = f"AccountName={known['AccountName']};BlobEndpoint={known['BlobEndpoint']};SharedAccessSignature={signature}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    signed = open_store(bucket.store.url)
    signed.create(bucket.key("a"), b"data")
    assert signed.read(bucket.key("a")) == b"data"


def test_an_identity_is_used_instead_of_a_connection_strings_key_but_at_its_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = "BlobEndpoint=https://mine.blob.core.chinacloudapi.cn"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountName=mine;AccountKey=a2V5;{endpoint}")
    identity = GoogleInAzure(trust="gcp-to-azure", bucket="az://mine", tenant="tenant", client="client")
    store = open_store("az://mine/container", [identity])
    assert isinstance(store, AzureStore)
    assert store._container.primary_hostname == "mine.blob.core.chinacloudapi.cn"
    assert store._container.credential is google_in_azure.credential("tenant", "client")
