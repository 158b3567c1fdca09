"""Data in a bucket: a local copy of one version, made once."""

from pathlib import Path

import pytest

from client import data
from client.data import data_source, fetch
from exchange.errors import NotFound, SettingsError, VersionMismatch
from exchange.spec import GoogleInAzure
from tests.support.buckets import Bucket, Clock
from tests.support.watched import Crash, CrashingStore, Unavailable


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(Clock())


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_object_is_copied_under_its_own_name(bucket: Bucket, tmp_path: Path):
    bucket.create("cohort/2024/rows.csv", b"a,b")
    bucket.create("cohort/2024/rows.csv.gz", b"another")
    path = fetch(bucket, "cohort/2024/rows.csv", tmp_path)
    assert path.name == "rows.csv"
    assert path.read_bytes() == b"a,b"


@pytest.mark.parametrize("name", ["cohort", "cohort/"])
def test_a_prefix_is_copied_as_a_folder(bucket: Bucket, tmp_path: Path, name: str):
    for key in ("cohort/train/a.npy", "cohort/train/b.npy", "cohort/readme", "cohorts/other"):
        bucket.create(key, key.encode())
    assert files(fetch(bucket, name, tmp_path)) == {
        "train/a.npy": b"cohort/train/a.npy",
        "train/b.npy": b"cohort/train/b.npy",
        "readme": b"cohort/readme",
    }


def test_a_large_object_is_copied_whole(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data, "_BLOCK", 7)
    for size in (0, 6, 7, 8, 23):
        bucket.create(f"rows-{size}", bytes(range(size)))
        assert fetch(bucket, f"rows-{size}", tmp_path).read_bytes() == bytes(range(size))


@pytest.mark.parametrize("name", ["rows/a", "rows"])
def test_it_is_copied_again_only_once_it_was_replaced_and_the_old_copy_goes(bucket: Bucket, tmp_path: Path, name: str):
    bucket.create("rows/a", b"first")
    plan = Crash()
    watched = CrashingStore(bucket, plan)
    first = fetch(watched, name, tmp_path)
    reads = sum(call.startswith("read_into") for call in plan.calls)
    assert fetch(watched, name, tmp_path) == first
    assert sum(call.startswith("read_into") for call in plan.calls) == reads == 1
    bucket.replace("rows/a", b"second")
    second = fetch(watched, name, tmp_path)
    assert list(files(tmp_path).values()) == [b"second"]
    assert second != first


def test_a_copy_that_was_cut_off_is_no_copy(bucket: Bucket, tmp_path: Path):
    for key in ("rows/a", "rows/b"):
        bucket.create(key, key.encode())
    with pytest.raises(Unavailable):
        fetch(CrashingStore(bucket, Crash(at="read_into rows/b")), "rows", tmp_path)
    assert files(tmp_path) == {}
    assert len(files(fetch(bucket, "rows", tmp_path))) == 2


def test_an_object_replaced_while_it_is_copied_is_an_error(bucket: Bucket, tmp_path: Path):
    bucket.create("rows", b"first")

    class Replacing(Crash):
        def before(self, call: str) -> int:
            if call.startswith("read_into"):
                bucket.replace("rows", b"other")
            return super().before(call)

    with pytest.raises(VersionMismatch):
        fetch(CrashingStore(bucket, Replacing()), "rows", tmp_path)
    assert files(tmp_path) == {}


def test_what_is_not_there_is_named(bucket: Bucket, tmp_path: Path):
    with pytest.raises(NotFound, match="data: there is no object rows in memory://, and none under rows/"):
        fetch(bucket, "rows", tmp_path)


def test_a_name_that_no_store_takes_is_a_mistake_in_the_settings(bucket: Bucket, tmp_path: Path):
    with pytest.raises(SettingsError, match=r"data: memory:.*my rows: not a key"):
        fetch(bucket, "my rows", tmp_path)


def test_what_is_no_url_of_an_object_is_handed_on_as_it_is(tmp_path: Path):
    for text in ("gs://bucket", "az://account/container", "https://host/rows", "postgresql://host/rows", "rows.csv"):
        assert data_source(tmp_path, text, tmp_path) == text
    assert data_source(tmp_path, "gs://bucket/rows", None) == "gs://bucket/rows"


def test_a_bucket_in_another_cloud_is_opened_as_who_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bucket = Bucket(Clock())
    bucket.create("rows.npz", b"rows")
    asked: list[tuple[object, ...]] = []

    def opened(*arguments: object) -> Bucket:
        asked.append(arguments)
        return bucket

    monkeypatch.setattr(data, "open_store", opened)
    identity = GoogleInAzure(trust="gcp-to-azure", bucket="az://account", tenant="tenant", client="client")
    found = data_source(tmp_path, "az://account/data/rows.npz", tmp_path / "copies", [identity])
    assert Path(found).read_bytes() == b"rows"
    assert asked == [("az://account/data", [identity])]
