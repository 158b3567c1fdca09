"""A function in one cloud and a bucket in the other, without a key: the function's own cloud says who it is.

The code under test finds what stands in for the token services under their real names (`tests/support/internet.py`);
behind the doors are the storage emulators.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ResourceTypes, generate_account_sas
from google.auth import _helpers

from exchange.errors import StoreError
from exchange.spec import AzureInGoogle, GoogleInAzure, Identity
from exchange.stores import Store, _fitting, azure, azure_in_google, gcs, google_in_azure, open_store, patience
from tests.exchange.stores.behind import behind
from tests.support.clouds import LIFETIME, AppService, EntraId, GoogleSts, Issuer, Metadata, boundary, door
from tests.support.emulators import environment, running
from tests.support.internet import Answer, Asked, Site, internet

REAL = (
    "STORAGE_EMULATOR_HOST",
    "AZURE_STORAGE_CONNECTION_STRING",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_CLIENT_ID",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
)  # what might lead elsewhere than a function in the cloud goes

AZURE, GOOGLE = "https://storage.azure.com", "https://storage.googleapis.com"  # the audiences
NOW = time.time


@dataclass
class Way:
    """From a function in one cloud to a bucket in the other.

    Attributes:
        proofs, passes: what the function's own cloud, and then the bucket's, have signed.
        service: the token service of the bucket's cloud.
        own: the one of the function's.
        audience, door: whom the passes are for, and what lets in to the bucket.
    """

    url: str
    identity: Identity
    proofs: Issuer
    passes: Issuer
    service: Any
    own: Any
    audience: str
    door: Site

    def open(self) -> Store:
        return open_store(self.url, [self.identity])

    def credential(self) -> object:
        if isinstance(self.identity, GoogleInAzure):
            return google_in_azure.credential(self.identity.tenant, self.identity.client)
        return azure_in_google.credential(self.identity.provider, self.identity.resource)

    @property
    def asked(self) -> tuple[int, int]:
        """How many tokens of each kind there were."""
        return len(self.proofs.issued), len(self.passes.issued)


@pytest.fixture(params=["gcp-to-azure", "azure-to-gcp"])
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    cloud, make = {"gcp-to-azure": ("azure", google_to_azure), "azure-to-gcp": ("gcs", azure_to_google)}[request.param]
    for module in (azure_in_google, google_in_azure):
        module.credential.cache_clear()
    with running(cloud) as url:
        behind(url).make()
        made, sites, own = make(url)
        with internet(sites, tmp_path) as found:
            for name in REAL:
                monkeypatch.delenv(name, raising=False)
            for name, value in {**found, **own}.items():
                monkeypatch.setenv(name, value)
            yield made


def google_to_azure(url: str) -> tuple[Way, Mapping[str, Site], Mapping[str, str]]:
    google = Issuer("https://accounts.google.com")
    metadata = Metadata(google)
    entra = EntraId(google, metadata.account)
    host, entrance = azure_door(entra.azure)
    sites = {
        "metadata.google.internal": metadata,
        "169.254.169.254": metadata,
        "login.microsoftonline.com": entra,
        host: entrance,
    }
    identity = GoogleInAzure(
        trust="gcp-to-azure", bucket=url.rpartition("/")[0], tenant=entra.tenant, client=entra.client
    )
    return Way(url, identity, google, entra.azure, entra, metadata, AZURE, entrance), sites, {}


def azure_door(trusted: Issuer) -> tuple[str, Site]:
    """The emulated account under its real name, for who shows a good token."""
    service = BlobServiceClient.from_connection_string(environment("azure")["AZURE_STORAGE_CONNECTION_STRING"])
    account = str(service.account_name)
    sas = generate_account_sas(
        account,
        str(service.credential.account_key),
        ResourceTypes(container=True, object=True),
        AccountSasPermissions(read=True, write=True, create=True, list=True, add=True),
        datetime.now(UTC) + timedelta(days=1),
    )
    upstream = service.url.removesuffix("/").removesuffix(f"/{account}")
    return f"{account}.blob.core.windows.net", door(upstream, f"/{account}", trusted, AZURE, sas)


def azure_to_google(url: str) -> tuple[Way, Mapping[str, Site], Mapping[str, str]]:
    azure = Issuer("https://sts.windows.net/11111111/")
    platform, sts = AppService(azure), GoogleSts(azure)
    entrance = door(environment("gcs")["STORAGE_EMULATOR_HOST"], "", sts.google, GOOGLE)
    sites = {
        "169.254.129.5": platform,
        "sts.googleapis.com": sts,
        "iamcredentials.googleapis.com": boundary,
        "storage.googleapis.com": entrance,
    }
    identity = AzureInGoogle(trust="azure-to-gcp", bucket=url, provider=sts.provider, resource=sts.audience)
    return Way(url, identity, azure, sts.google, sts, platform, GOOGLE, entrance), sites, platform.environment


def test_a_function_in_one_cloud_creates_lists_and_reads_in_the_other(way: Way) -> None:
    store = way.open()
    version = store.create("inbox/1.json", b"ticket")
    assert store.read("inbox/1.json", version) == b"ticket"
    assert [info.key for info in store.list("inbox/")] == ["inbox/1.json"]


def test_many_threads_and_stores_ask_for_one_token(way: Way) -> None:
    stores = [way.open() for _ in range(4)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda each: stores[each % 4].create(f"a/{each}", b"data"), range(40)))
    assert [info.key for info in way.open().list("")] == sorted(f"a/{each}" for each in range(40))
    assert way.asked == (1, 1)


def test_tokens_are_renewed_shortly_before_they_expire(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    store = way.open()
    store.create("a", b"data")
    for seconds, expected in ((LIFETIME // 2, (1, 1)), (LIFETIME - 60, (2, 2)), (3 * LIFETIME, (3, 3))):
        later(monkeypatch, seconds)
        assert store.read("a") == b"data"
        assert way.asked == expected, f"{seconds} seconds later"


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Move the clock of both clouds and of this process."""
    monkeypatch.setattr(time, "time", lambda: NOW() + seconds)
    monkeypatch.setattr(_helpers, "utcnow", lambda: datetime.fromtimestamp(NOW() + seconds, UTC).replace(tzinfo=None))


@pytest.mark.parametrize("way", ["azure-to-gcp"], indirect=True)
def test_of_several_managed_identities_the_environment_names_one(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_ID", "chosen-client")
    way.service.subject = "user-assigned"
    assert way.open().create("a", b"data")


# A function and a bucket in one cloud


@dataclass
class Home:
    """A function's own cloud; it is silent for `stall` seconds the next time that the function asks for a token.

    Attributes:
        asked: what the function wanted to know of itself, or of its rights.
    """

    url: str
    tokens: Issuer
    asked: list[str]
    stall: float = 0.0

    def site(self, real: Site) -> Site:
        def site(asked: Asked) -> Answer:
            self.asked.append(asked.target)
            pause, self.stall = self.stall, 0.0
            time.sleep(pause)
            return real(asked)

        return site


@pytest.fixture(params=["azure", "gcs"])
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    with running(request.param) as url:
        behind(url).make()
        made = Home(url, Issuer("https://the.cloud"), [])
        sites, own = {"azure": azure_home, "gcs": google_home}[request.param](made)
        with internet(sites, tmp_path) as found, forgotten(azure._own, gcs._own):
            for name in REAL:
                monkeypatch.delenv(name, raising=False)
            for name, value in {**found, **own}.items():
                monkeypatch.setenv(name, value)
            yield made


@contextmanager
def forgotten(*caches: Any) -> Iterator[None]:
    """Have this process find anew who it is, and again afterwards."""
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


def azure_home(home: Home) -> tuple[Mapping[str, Site], Mapping[str, str]]:
    platform = AppService(home.tokens)
    host, entrance = azure_door(home.tokens)
    return {"169.254.129.5": home.site(platform), host: entrance}, platform.environment


def google_home(home: Home) -> tuple[Mapping[str, Site], Mapping[str, str]]:
    metadata = home.site(Metadata(home.tokens))
    sites = {
        "metadata.google.internal": metadata,
        "169.254.169.254": metadata,
        "iamcredentials.googleapis.com": home.site(boundary),
        "storage.googleapis.com": door(environment("gcs")["STORAGE_EMULATOR_HOST"], "", home.tokens, GOOGLE),
    }
    return sites, {}


def test_all_stores_of_a_function_share_its_own_identity(home: Home) -> None:
    """A parent has as many stores as there are inboxes: each would ask who it is, and for a token of its own."""
    for each in range(3):
        assert open_store(home.url).create(f"a/{each}", b"data")
    assert len(home.tokens.issued) == 1
    assert len(set(home.asked)) == len(home.asked)


@pytest.mark.parametrize("home", ["azure"], indirect=True)
def test_a_token_service_that_says_nothing_is_asked_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure's library would wait five minutes for it: half of what a call of the parent may last."""
    monkeypatch.setitem(azure._TIMEOUTS, "read_timeout", 0.2)
    home.stall = 2.0
    began = time.monotonic()
    assert open_store(home.url).create("a", b"data")
    assert time.monotonic() - began < 1.9


# Refusals


def other_audience(way: Way) -> None:
    way.service.audience = "api://another"


def other_subject(way: Way) -> None:
    way.service.subject = "another"


def other_issuer(way: Way) -> None:
    way.service.trusted = Issuer("https://another", key=way.proofs.key)


def other_key(way: Way) -> None:
    way.service.trusted = Issuer(way.proofs.name)


def stale_proof(way: Way) -> None:
    way.proofs.lifetime = -1


def other_tenant_or_provider(way: Way) -> None:
    way.service.tenant = way.service.provider = "another"


def no_proof(way: Way) -> None:
    way.own.up = False


REFUSALS = [
    (other_audience, "AADSTS700212", "invalid_grant"),
    (other_subject, "AADSTS700213", "unauthorized_client"),
    (other_issuer, "AADSTS700211", "invalid_grant"),
    (other_key, "AADSTS7000272", "invalid_grant"),
    (stale_proof, "AADSTS700024", "invalid_grant"),
    (other_tenant_or_provider, "AADSTS90002", "invalid_target"),
    (no_proof, "no_google_id_token", "no_azure_token"),
]


@pytest.mark.parametrize(("break_trust", "in_azure", "in_google"), REFUSALS)
def test_a_refusal_is_an_error_that_says_why_and_holds_no_secret(
    way: Way, break_trust: Callable[[Way], None], in_azure: str, in_google: str, said: Said
) -> None:
    break_trust(way)
    store = way.open()
    reason = in_azure if isinstance(way.identity, GoogleInAzure) else in_google
    for act in (lambda: store.create("a", b"data"), lambda: store.read("a"), lambda: list(store.list(""))):
        with pytest.raises(StoreError, match=f"{store.url}: refused with 401 {reason}; check") as caught:
            act()
        assert type(caught.value) is StoreError
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        said.lines += traceback.format_exception(caught.value)
    assert not way.passes.issued
    assert not said.any_of(way)


def test_a_token_service_that_fails_for_a_while_is_not_noticed(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.01, 0.02))
    way.service.failures = 2
    assert way.open().create("a", b"data")


def test_the_door_lets_in_who_shows_a_good_token_and_nobody_else(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is what makes these tests tests."""

    def knock(**headers: str) -> bool:
        return way.door(Asked("GET", "/storage/v1/b", headers, b"")).status != 401

    good, proof = way.passes.sign(way.audience, "anybody"), way.proofs.sign(way.audience, "anybody")
    forged = Issuer(way.passes.name).sign(way.audience, "anybody")
    assert knock(Authorization=f"Bearer {good}")
    assert not knock()
    assert not any(knock(Authorization=f"Bearer {each}") for each in (proof, forged, good[:-1]))
    assert not knock(Authorization=f"Bearer {way.passes.sign('https://another', 'anybody')}")
    later(monkeypatch, LIFETIME + 1)
    assert not knock(Authorization=f"Bearer {good}")


# Secrets


@dataclass
class Said:
    """All that was logged by anybody, at any level, with everything that hangs on it; and what a test adds."""

    lines: list[str]

    def any_of(self, way: Way) -> list[str]:
        """The lines that hold a token, its signature alone, or what proves that the function is the function."""
        secrets = [
            each for token in way.proofs.issued + way.passes.issued for each in (token, token.rpartition(".")[2])
        ]
        if isinstance(way.own, AppService):
            secrets.append(way.own.header)
        return [line for line in self.lines for secret in secrets if secret in line]


@pytest.fixture
def said() -> Iterator[Said]:
    found = Said([])

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.lines.append(f"{self.format(record)} {vars(record)}")

    handler, root = Keep(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield found
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def test_no_token_is_in_a_log_line_or_in_what_an_object_says_of_itself(
    way: Way, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = way.open()
    for seconds in (0, 2 * LIFETIME):
        later(monkeypatch, seconds)
        with store.writer(f"large-{seconds}", 9_000_000) as out:
            out.write(bytes(9_000_000))
        store.read(f"large-{seconds}")
    logging.getLogger().debug("the end")
    assert any("the end" in line for line in said.lines)
    said.lines += [repr(each) for each in (store, vars(store), way.identity, way.credential())]
    assert way.asked == (2, 2)
    assert not said.any_of(way)
    assert not [line for line in said.lines if "sig=" in line or "upload_id=" in line]


# Which identity


def identity(bucket: str) -> GoogleInAzure:
    return GoogleInAzure(trust="gcp-to-azure", bucket=bucket, tenant="t", client="c")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("az://account/container", "az://account/container"),
        ("az://account/container/", "az://account/container"),
        ("az://account/container/prefix", "az://account/container"),
        ("az://account/containers", "az://account"),
        ("az://account/other", "az://account"),
        ("az://accounts/container", None),
        ("az://acc/container", None),
    ],
)
def test_the_longest_bucket_that_begins_the_url_decides(url: str, expected: str | None) -> None:
    identities = [identity("az://account/container"), identity("az://account/")]
    found = _fitting(url, GoogleInAzure, identities)
    assert (found and found.bucket.rstrip("/")) == expected
    assert _fitting(url, AzureInGoogle, identities) is None
