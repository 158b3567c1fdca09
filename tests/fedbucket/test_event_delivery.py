"""From an object in an emulated bucket to a function in a real host: at least once, whatever fails in between."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from exchange.events import ObjectCreated, from_event_grid, from_gcs
from exchange.stores import open_store
from fedbucket import emulators
from fedbucket.emulators import Attempt, Eventarc, Host, Router, StorageQueue
from fedbucket.local.delivery import Chaos
from tests.exchange.stores.behind import behind

ROOT = Path(__file__).parents[2]
EVENTS = ROOT / "tests/events"

# What both functions do: keep what came, then what the object's key tells them to. "fails-2-…" fails twice.
WORK = """
import json, os, time

def work(key, **came):
    with open("came.jsonl", "a+") as file:
        file.seek(0)
        before = sum(json.loads(line)["key"] == key for line in file)
        file.write(json.dumps({"key": key, **came}) + "\\n")
    kind, _, number = key.rpartition("/")[2].partition("-")
    if kind == "fails" and before < int(number.partition("-")[0]):
        raise RuntimeError(f"{key}: told to fail")
    if kind == "hangs" and before == 0:
        time.sleep(600)
    if kind == "naps":
        time.sleep(0.02)
    with open("done.jsonl", "a") as file:
        file.write(json.dumps({"key": key, **came}) + "\\n")
"""
GCP = """
import functions_framework
from work import work

@functions_framework.cloud_event
def on_object(event):
    attributes = {name: event[name] for name in ("id", "type", "source", "subject")}
    work(event.data["name"], attributes=attributes, body=event.data)

@functions_framework.http
def on_timer(request):
    work("timer")
    return "done"
"""
AZURE = """
import json, logging
import azure.functions as func
from work import work

class AsJson(logging.Formatter):
    def format(self, record):
        return json.dumps({"said": record.getMessage()})

for handler in logging.getLogger().handlers:
    handler.setFormatter(AsJson())
app = func.FunctionApp()

@app.queue_trigger(arg_name="message", queue_name="%QUEUE%", connection="STORAGE")
def on_object(message: func.QueueMessage) -> None:
    event = message.get_json()
    logging.info("an event came")
    key = event["subject"].split("/blobs/")[1]
    work(key, body=event, id=message.id, dequeue_count=message.dequeue_count, inserted=str(message.insertion_time))

@app.timer_trigger(arg_name="timer", schedule="0 */5 * * * *")
def on_timer(timer: func.TimerRequest) -> None:
    work("timer", past_due=timer.past_due)
"""
HOST_JSON = {
    "version": "2.0",
    "extensionBundle": {"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[4.0.0, 5.0.0)"},
    "extensions": {"queues": {"batchSize": 2, "newBatchThreshold": 1}},
}


class Cloud:
    """A cloud's emulated storage and a host of functions in it; each test has a bucket of its own."""

    host: Host
    bucket: str
    router: Router | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def created(self, payload: Any) -> None:
        """Told by the emulator."""
        if self.router is not None:
            (self.router.gcs_object if self.name == "gcs" else self.router.blob)(payload)

    def use_new_bucket(self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.bucket = name if self.name == "gcs" else f"{emulators.ACCOUNT}/{name}"
        behind(self.url).make()

    @property
    def url(self) -> str:
        return f"{'gs' if self.name == 'gcs' else 'az'}://{self.bucket}"

    def subscription(self, **settings: Any) -> Eventarc | StorageQueue:
        if self.name == "gcs":
            return Eventarc(self.bucket, self.host, **settings)
        return StorageQueue(self.bucket, self.host, "objects", **settings)

    def deliver(self, router: Router, **settings: Any) -> None:
        """Have the router bring what is created in the bucket to the host."""
        self.router = router
        router.subscribe(self.subscription(**settings))

    def create(self, key: str, data: bytes = b"data") -> str:
        return open_store(self.url).create(key, data)

    def lines(self, file: str, key: str | None = None) -> list[dict[str, Any]]:
        path = self.host.folder / file
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if key in (None, line["key"])]


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60  # two busy cores
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def write_folder(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in {"work_py": WORK, **files}.items():
        (folder / name.replace("_py", ".py").replace("_json", ".json")).write_text(text)
    return folder


@pytest.fixture(scope="module")
def gcs_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, dict[str, str]]]:
    cloud, base = Cloud("gcs"), tmp_path_factory.mktemp("gcs")
    folder = write_folder(base / "function", main_py=GCP)
    with (
        emulators.gcs(cloud.created) as environment,
        emulators.gcp_function(folder, "on_object", {}, base / "on_object.log") as cloud.host,
    ):
        yield cloud, dict(environment)


@pytest.fixture(scope="module")
def azure_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, dict[str, str]]]:
    if emulators.find_azurite() is None:
        pytest.skip("Azurite is not installed: make azurite (it needs Node)")
    cloud, base = Cloud("azure"), tmp_path_factory.mktemp("azure")
    folder = write_folder(base / "function", function_app_py=AZURE, host_json=json.dumps(HOST_JSON))
    with (
        emulators.azure(cloud.created) as environment,
        emulators.azure_function(folder, {"QUEUE": "objects"}, base / "azure.log") as cloud.host,
    ):
        yield cloud, dict(environment)


@pytest.fixture(params=["gcs", "azure"])
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    found, environment = request.getfixturevalue(f"{request.param}_cloud")
    found.use_new_bucket(monkeypatch, environment)
    yield found
    found.router = None


@pytest.fixture
def only_gcs(gcs_cloud: tuple[Cloud, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Cloud:
    gcs_cloud[0].use_new_bucket(monkeypatch, gcs_cloud[1])
    return gcs_cloud[0]


@pytest.fixture
def only_azure(azure_cloud: tuple[Cloud, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Cloud:
    azure_cloud[0].use_new_bucket(monkeypatch, azure_cloud[1])
    return azure_cloud[0]


def event_of(cloud: Cloud, line: dict[str, Any]) -> ObjectCreated:
    """What came, as our functions will read it."""
    came = from_gcs(line["attributes"], line["body"]) if cloud.name == "gcs" else from_event_grid(line["body"])
    (event,) = came
    return event


def test_an_object_created_by_the_sdk_wakes_the_function_with_the_clouds_own_event(cloud: Cloud) -> None:
    with Router() as router:
        cloud.deliver(router)
        version = cloud.create("updates/a.bin", b"12345")
        until(lambda: cloud.lines("done.jsonl", "updates/a.bin"))
        until(lambda: router.idle)
    (line,) = cloud.lines("came.jsonl", "updates/a.bin")
    event = event_of(cloud, line)
    assert (event.bucket, event.key, event.version) == (cloud.bucket, "updates/a.bin", version)
    size = line["body"]["size"] if cloud.name == "gcs" else line["body"]["data"]["contentLength"]
    assert size == ("5" if cloud.name == "gcs" else 5)


def test_an_object_may_have_any_name(cloud: Cloud) -> None:
    with Router() as router:
        cloud.deliver(router)
        behind(cloud.url).replace(name := "a cat/ü%2F&?#+.txt", b"data")
        until(lambda: cloud.lines("done.jsonl", name))
    assert {event_of(cloud, line).key for line in cloud.lines("came.jsonl", name)} == {name}


def test_what_is_created_elsewhere_wakes_nobody(cloud: Cloud) -> None:
    with Router() as router:
        cloud.deliver(router)
        behind(f"{cloud.url}-2").make()
        open_store(f"{cloud.url}-2").create("elsewhere", b"data")
        cloud.create("after-it")
        until(lambda: cloud.lines("done.jsonl", "after-it"))
    assert cloud.lines("came.jsonl", "elsewhere") == []


def test_an_overwritten_object_is_an_event_of_its_own(cloud: Cloud) -> None:
    with Router() as router:
        cloud.deliver(router)
        versions = set()
        for data in (b"one", b"two"):
            behind(cloud.url).replace("overwritten", data)
            versions.add(open_store(cloud.url).stat("overwritten").version)
        until(lambda: len(cloud.lines("done.jsonl", "overwritten")) == 2)
    assert {event_of(cloud, line).version for line in cloud.lines("done.jsonl", "overwritten")} == versions


def test_gcs_tells_the_whole_resource_of_an_object(only_gcs: Cloud) -> None:
    with Router() as router:
        only_gcs.deliver(router)
        only_gcs.create("resource")
        until(lambda: only_gcs.lines("done.jsonl", "resource"))
    (line,) = only_gcs.lines("done.jsonl", "resource")
    recorded = json.loads((EVENTS / "gcs.json").read_bytes())
    assert line["body"].keys() >= recorded["body"].keys()
    assert line["attributes"]["source"] == f"//storage.googleapis.com/projects/_/buckets/{only_gcs.bucket}"
    assert line["attributes"]["subject"] == "objects/resource"


def test_azure_tells_what_event_grid_tells(only_azure: Cloud) -> None:
    with Router() as router:
        only_azure.deliver(router)
        only_azure.create("told")
        until(lambda: only_azure.lines("done.jsonl", "told"))
    (line,) = only_azure.lines("done.jsonl", "told")
    (recorded,) = json.loads((EVENTS / "event_grid.json").read_bytes())
    assert line["body"].keys() == recorded.keys()
    assert line["body"]["data"].keys() == recorded["data"].keys() - {"accessTier"}
    assert line["body"]["data"]["api"] == "PutBlob"


def test_a_large_object_wakes_the_function_once_when_it_is_whole(cloud: Cloud) -> None:
    size = 65 * 2**20 if cloud.name == "azure" else 9 * 2**20  # where our stores begin to upload in parts
    with Router() as router:
        cloud.deliver(router)
        with open_store(cloud.url).writer("large", size) as out:
            for start in range(0, size, 2**20):
                out.write(bytes(min(2**20, size - start)))
        until(lambda: cloud.lines("done.jsonl", "large"))
    (line,) = cloud.lines("came.jsonl", "large")
    if cloud.name == "gcs":
        assert line["body"]["size"] == str(size)
    else:
        assert (line["body"]["data"]["api"], line["body"]["data"]["contentLength"]) == ("PutBlockList", size)


@pytest.mark.parametrize("shape", ["gcs", "gcs_structured"])
def test_the_recorded_requests_of_eventarc_reach_the_function(only_gcs: Cloud, shape: str) -> None:
    payload = json.loads((EVENTS / f"{shape}.json").read_bytes())
    assert post(only_gcs.host, "/", payload["body"], payload["headers"]) == 200
    assert event_of(only_gcs, only_gcs.lines("came.jsonl")[-1]).id == "8675309012345678"


@pytest.mark.parametrize("shape", ["queue_message", "queue_message_cloud_events"])
def test_the_recorded_messages_of_a_queue_reach_the_function(only_azure: Cloud, shape: str) -> None:
    message = json.loads((EVENTS / f"{shape}.json").read_bytes())
    assert post(only_azure.host, "/queue/objects", message, {}) == 200
    line = only_azure.lines("came.jsonl")[-1]
    assert event_of(only_azure, line).id == "831e1650-001e-001b-66ab-eeb76e069631"
    assert (line["id"], line["dequeue_count"], line["inserted"]) == (
        message["MessageId"],
        1,
        "2025-11-20 10:01:03+00:00",
    )


def test_a_host_answers_404_where_no_function_is_called(only_azure: Cloud) -> None:
    assert post(only_azure.host, "/queue/another", {}, {}) == 404
    assert post(only_azure.host, "/admin/functions/another", {}, {}) == 404


def post(host: Host, path: str, body: Any, headers: dict[str, str]) -> int:
    headers = {name: value for name, value in headers.items() if name != "Host"}
    request = urllib.request.Request(f"http://127.0.0.1:{host.port}{path}", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


# Failure


def test_a_function_that_raises_is_called_again_until_it_returns(cloud: Cloud) -> None:
    attempts: list[Attempt] = []
    with Router(tell=attempts.append) as router:
        cloud.deliver(router)
        cloud.create("fails-2")
        until(lambda: len(attempts) == 3)
    assert [(attempt.number, attempt.status, attempt.outcome) for attempt in attempts] == [
        (1, 500, "again"),
        (2, 500, "again"),
        (3, 200, "done"),
    ]
    lines = cloud.lines("came.jsonl", "fails-2")
    assert len({line["attributes"]["id"] if cloud.name == "gcs" else line["id"] for line in lines}) == 1


def test_eventarc_waits_twice_as_long_each_time_up_to_ten_minutes_for_a_day(only_gcs: Cloud) -> None:
    subscription = only_gcs.subscription()
    waits = [subscription.wait(attempt, 0.0, "raised") for attempt in range(1, 1000)]
    assert [wait / emulators.SCALE for wait in waits[:8] if wait] == [10, 20, 40, 80, 160, 320, 600, 600]
    assert waits[-1] == 600 * emulators.SCALE
    assert subscription.wait(2, 25 * 3600 * emulators.SCALE, "raised") is None


def test_a_queue_is_governed_by_host_json(only_azure: Cloud, tmp_path: Path) -> None:
    plain = StorageQueue("a/b", Host([], tmp_path, {}, tmp_path / "log"), "objects")
    assert (plain.concurrency, plain.wait(4, 0.0, "raised"), plain.wait(5, 0.0, "raised")) == (24, 0.0, None)
    queues = {"batchSize": 1, "newBatchThreshold": 0, "maxDequeueCount": 2, "visibilityTimeout": "00:00:30"}
    (tmp_path / "host.json").write_text(json.dumps({"extensions": {"queues": queues}}))
    ours = StorageQueue("a/b", Host([], tmp_path, {}, tmp_path / "log"), "objects")
    assert (ours.concurrency, ours.wait(1, 0.0, "raised"), ours.wait(2, 0.0, "raised")) == (1, 0.15, None)


def test_what_always_fails_ends_as_a_dead_letter(cloud: Cloud, tmp_path: Path) -> None:
    with Router(dead_letters=tmp_path / "dead.jsonl") as router:
        cloud.deliver(router, **({"tries": 5} if cloud.name == "gcs" else {}))
        cloud.create("fails-99")
        until(lambda: router.dead_letters)
        until(lambda: router.idle)
    (letter,) = router.dead_letters
    assert (letter.created.key, letter.attempts) == ("fails-99", 5)
    assert letter.where == ("dropped" if cloud.name == "gcs" else "objects-poison")
    assert len(cloud.lines("came.jsonl", "fails-99")) == 5
    (line,) = (tmp_path / "dead.jsonl").read_text().splitlines()
    assert json.loads(line)["created"]["key"] == "fails-99"
    if cloud.name == "azure":
        assert [line["dequeue_count"] for line in cloud.lines("came.jsonl", "fails-99")] == [1, 2, 3, 4, 5]


def test_a_killed_host_gets_its_events_when_it_is_back(cloud: Cloud) -> None:
    attempts: list[Attempt] = []
    with Router(tell=attempts.append) as router:
        cloud.deliver(router)
        cloud.host.kill()
        cloud.create("while-away")
        until(lambda: len(attempts) >= 2)
        cloud.host.start()
        until(lambda: cloud.lines("done.jsonl", "while-away"))
    assert {attempt.status for attempt in attempts[:2]} == {0}
    if cloud.name == "azure":  # nobody fetched while it was away: those were no tries
        assert cloud.lines("done.jsonl", "while-away")[0]["dequeue_count"] == 1


def test_a_host_killed_while_it_works_gets_the_event_again(cloud: Cloud) -> None:
    with Router() as router:
        cloud.deliver(router, **({"lease": 0.1} if cloud.name == "azure" else {}))
        cloud.create("hangs")
        until(lambda: cloud.lines("came.jsonl", "hangs"))
        assert not router.idle
        cloud.host.restart()
        until(lambda: cloud.lines("done.jsonl", "hangs"))
    assert len(cloud.lines("came.jsonl", "hangs")) == 2


def test_a_router_stops_though_a_function_never_returns(cloud: Cloud) -> None:
    with Router() as router:
        cloud.deliver(router)
        cloud.create("a/hangs")
        until(lambda: cloud.lines("came.jsonl", "a/hangs"))
    cloud.host.restart()
    assert len(cloud.lines("came.jsonl", "a/hangs")) == 1


# Chaos


def test_chaos_doubles_and_reorders_and_loses_nothing(cloud: Cloud) -> None:
    attempts: list[Attempt] = []
    names = [f"chaos/{number:02}" for number in range(30)]
    with Router(Chaos(seed=1, fail=0, max_delay=0.2), tell=attempts.append) as router:
        cloud.deliver(router)
        for name in names:
            cloud.create(name)
        until(lambda: {line["key"] for line in cloud.lines("done.jsonl")} >= set(names))
        until(lambda: router.idle)
    came = [line for line in cloud.lines("came.jsonl") if line["key"] in names]
    assert len(names) < len(came) == len(attempts)
    assert [line["key"] for line in came] != sorted(line["key"] for line in came)
    assert len({event_of(cloud, line).id for line in came}) == len(names)


def test_chaos_fails_what_has_done_its_work_and_gives_up_nothing(cloud: Cloud) -> None:
    attempts: list[Attempt] = []
    with Router(Chaos(seed=1, duplicate=0, fail=1), tell=attempts.append) as router:
        cloud.deliver(router)
        for number in range(8):
            cloud.create(f"undone/{number}")
        until(lambda: sum(attempt.outcome == "done" for attempt in attempts) == 8)
    assert any(attempt.status == 200 and attempt.outcome == "again" for attempt in attempts)
    assert any(attempt.status == 0 for attempt in attempts)
    assert router.dead_letters == []


def test_an_azure_host_calls_as_many_functions_at_once_as_host_json_says(only_azure: Cloud) -> None:
    attempts: list[Attempt] = []
    recorded = json.loads((EVENTS / "event_grid.json").read_text().replace("readmissionparent", emulators.ACCOUNT))[0]
    container = only_azure.bucket.rpartition("/")[2]
    with Router(tell=attempts.append) as router:
        only_azure.deliver(router)
        for number in range(12):
            subject = f"/blobServices/default/containers/{container}/blobs/{number}/naps"
            router.blob({**recorded, "subject": subject})
        until(lambda: len(attempts) == 12)
    moments = sorted([(a.started, 1) for a in attempts] + [(a.started + a.seconds, -1) for a in attempts])
    at_once = [sum(step for _, step in moments[:count]) for count in range(len(moments))]
    assert 1 < max(at_once) <= 3


# Timers


def test_timers_call_their_function_again_and_again(cloud: Cloud, tmp_path: Path) -> None:
    with ExitStack() as stack:
        host, path = cloud.host, "/admin/functions/on_timer"
        if cloud.name == "gcs":  # a function is a service of its own there
            log = tmp_path / "on_timer.log"
            host, path = stack.enter_context(emulators.gcp_function(cloud.host.folder, "on_timer", {}, log)), "/"
        before = len(cloud.lines("done.jsonl", "timer"))
        router = stack.enter_context(Router())
        router.timer(host, path, period=0.05)
        until(lambda: len(cloud.lines("done.jsonl", "timer")) >= before + 3)
    assert len(cloud.lines("done.jsonl", "timer")) >= before + 3


# Hosts


def test_the_formatter_that_an_app_sets_on_the_root_logger_writes_its_log(only_azure: Cloud) -> None:
    message = json.loads((EVENTS / "queue_message.json").read_bytes())
    assert post(only_azure.host, "/queue/objects", message, {}) == 200
    assert '{"said": "an event came"}' in only_azure.host.log.read_text().splitlines()


@pytest.mark.parametrize("kind", ["gcp", "azure"])
def test_a_host_that_cannot_start_says_why(kind: str, tmp_path: Path) -> None:
    for file in ("main.py", "function_app.py"):
        (tmp_path / file).write_text("raise ValueError('out of order')")
    context = {
        "gcp": emulators.gcp_function(tmp_path, "on_object", {}, tmp_path / "log"),
        "azure": emulators.azure_function(tmp_path, {}, tmp_path / "log"),
    }[kind]
    with pytest.raises(RuntimeError, match="out of order"):
        context.__enter__()


START = """
import sys
from pathlib import Path
from fedbucket import emulators
folder, kind = Path(sys.argv[1]), sys.argv[2]
if kind == "gcp":
    context = emulators.gcp_function(folder, "on_timer", {}, folder / "log", instances=2)
else:
    context = emulators.azure_function(folder, {"QUEUE": "objects"}, folder / "log")
with context as host:
    print(host.port, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["gcp", "azure"])
def test_a_host_ends_with_the_process_that_started_it_even_if_that_is_killed(kind: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "function", main_py=GCP, function_app_py=AZURE, host_json=json.dumps(HOST_JSON))
    command = [sys.executable, "-c", START, str(folder), kind]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert listens(port)
        process.kill()
    until(lambda: not listens(port))


def test_an_app_with_a_queue_trigger_needs_the_bundle_that_knows_it(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "function", function_app_py=AZURE, host_json='{"version": "2.0"}')
    with (
        pytest.raises(RuntimeError, match="expected an extensionBundle"),
        emulators.azure_function(folder, {"QUEUE": "objects"}, folder / "log"),
    ):
        pass


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
