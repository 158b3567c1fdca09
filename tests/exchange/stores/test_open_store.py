"""`open_store`: from a URL to a bucket."""

import subprocess
import sys
from pathlib import Path

import pytest

from exchange import stores
from exchange.errors import SettingsError
from exchange.spec import AzureInGoogle, GoogleInAzure
from exchange.stores import open_store


def test_a_file_url_may_name_this_host(tmp_path: Path) -> None:
    assert open_store(f"file://localhost{tmp_path}").url == open_store(f"file://{tmp_path}").url == tmp_path.as_uri()


@pytest.mark.parametrize(
    ("url", "login"),
    [("gs://nobodys", "gcloud auth"), ("az://nobodys/container", "az login"), ("s3://nobodys", "aws configure")],
)
def test_who_has_no_credentials_is_told_how_to_get_some(url: str, login: str, tmp_path: Path) -> None:
    # In a process of its own: what an SDK has found once, it keeps. No machine's own identity is asked for.
    nothing = {"HOME": str(tmp_path), "PATH": str(tmp_path), "AZURE_TOKEN_CREDENTIALS": "dev"}
    nowhere = {"NO_GCE_CHECK": "true", "AWS_EC2_METADATA_DISABLED": "true"}
    status = [sys.executable, "-m", "fedbucket", "status", url, "--federation", "readmission"]
    done = subprocess.run(status, env=nothing | nowhere, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{url}: found no credentials: run `{login}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_bucket_in_memory_is_the_same_for_the_same_url() -> None:
    open_store("memory://one").create("key", b"data")
    assert open_store("memory://one").read("key") == b"data"
    assert not list(open_store("memory://other").list(""))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/folder",
        "folder",
        "ftp://host/folder",
        "https://storage.googleapis.com/bucket",
        "file:",
        "file://",
        "file:folder",
        "file://host/folder",
        "file://folder",
        "file:///folder?version=1",
        "file:///folder#1",
        "gs://",
        "gs:///prefix",
        "gs://bucket//prefix",
        "gs://bucket/../prefix",
        "gs://user:word@bucket",
        "s3://bucket?region=here",
        "az://account",
        "az://account/",
        "gs://[bucket",
        "gs://bucket-",
        f"gs://bucket/{'x' * 300}",
    ],
)
def test_what_is_no_buckets_url_is_refused_by_name(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(SettingsError) as caught:
        open_store(url)
    assert repr(url) in str(caught.value)
    assert "expected" in str(caught.value)
    assert "file:///folder" in str(caught.value)


def test_the_url_of_a_bucket_may_go_on_with_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    assert open_store("gs://bucket").url == open_store("gs://bucket/").url == "gs://bucket"
    assert open_store("gs://bucket/a/b/").url == "gs://bucket/a/b"


def test_a_missing_sdk_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, url, extra in (("gcs", "gs://b", "gcp"), ("azure", "az://a/c", "azure"), ("s3", "s3://b", "s3")):
        monkeypatch.delitem(sys.modules, f"exchange.stores.{module}", raising=False)
        monkeypatch.setitem(sys.modules, {"gcs": "google.cloud", "azure": "azure.core", "s3": "boto3"}[module], None)
        with pytest.raises(SettingsError, match=rf"fedbucket\[{extra}\]"):
            open_store(url)


def test_an_identity_needs_the_sdk_of_its_own_cloud_too(monkeypatch: pytest.MonkeyPatch) -> None:
    google = GoogleInAzure(trust="gcp-to-azure", bucket="az://a/c", tenant="t", client="c")
    azure = AzureInGoogle(trust="azure-to-gcp", bucket="gs://b", provider="//p", resource="api://r")
    for module, package, url, extra in (
        ("google_in_azure", "google.auth.exceptions", "az://a/c", "gcp"),
        ("azure_in_google", "azure.identity", "gs://b", "azure"),
    ):
        monkeypatch.delitem(sys.modules, f"exchange.stores.{module}", raising=False)
        monkeypatch.delattr(stores, module, raising=False)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(SettingsError, match=rf"fedbucket\[{extra}\]"):
                open_store(url, [google, azure])
