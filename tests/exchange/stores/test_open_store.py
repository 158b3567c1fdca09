"""`open_store`: from a URL to a bucket."""

from pathlib import Path

import pytest

from exchange.errors import SettingsError
from exchange.stores import open_store


def test_a_file_url_may_name_this_host(tmp_path: Path) -> None:
    assert open_store(f"file://localhost{tmp_path}").url == open_store(f"file://{tmp_path}").url == tmp_path.as_uri()


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
    ],
)
def test_what_is_no_buckets_url_is_refused_by_name(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_store(url)
    assert repr(url) in str(caught.value)
    assert "expected" in str(caught.value)
    assert "file:///folder" in str(caught.value)
