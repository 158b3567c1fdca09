"""The command line as a person meets it: every command is run as a program of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from torch.utils.data import Dataset

from client.task import load_task
from exchange import tensors
from exchange.stores.file import FileStore
from fedbucket import load
from fedbucket.endings import ending
from tests.support.buckets import contents

ROUNDS = 4
REGRESSION = """
def metrics(output, target):
    return {"mse": float(((output[:, 1] - target) ** 2).mean() / 1e3)}
"""


def fedbucket(*arguments: object, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line in `cwd` and hold it to its exit status."""
    command = [sys.executable, "-m", "fedbucket", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def new_federation(folder: Path, **changes: str) -> Path:
    """Write a federation with few rounds and without baselines; `changes` are texts to replace in federation.toml."""
    fedbucket("new", "clinic", cwd=folder)
    path = folder / "clinic" / "federation.toml"
    text = path.read_text().replace("rounds = 20", f"rounds = {ROUNDS}")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    local = folder / "clinic" / "local.toml"
    local.write_text(local.read_text() + "baselines = false\n")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a federation was made and run to its end, undisturbed."""
    folder = tmp_path_factory.mktemp("finished")
    fedbucket("run", new_federation(folder), cwd=folder)
    return folder


def model_of(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


def rounds_of(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


def test_a_run_leaves_what_the_readme_promises(finished: Path) -> None:
    run = finished / "runs" / "clinic"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["rounds"] == ROUNDS
    assert summary["finished"] == {"reason": "rounds", "round": ROUNDS}
    assert summary["clients"] == ["hospital-a", "hospital-b", "hospital-c"]
    assert 0 < summary["federated_accuracy"] <= 1
    assert f"one test set of {summary['test_examples']} examples" in (run / "report.html").read_text()
    assert [line["round"] for line in rounds_of(run)] == list(range(ROUNDS))
    assert all(line["accuracy"] is not None and line["spans"] for line in rounds_of(run))
    assert "clinic" in (run / "report.html").read_text()
    times = [time for line in rounds_of(run) for _, _, *span in cast(list[list[float]], line["spans"]) for time in span]
    assert summary["seconds"] == round(max(times) - min(times), 1)
    stored = run / "buckets" / "parent" / "clinic" / "public" / "models" / f"{ROUNDS:06d}.safetensors"
    assert stored.read_bytes() == model_of(run)


def test_the_model_comes_back_as_a_torch_module(finished: Path) -> None:
    module = load(finished / "runs" / "clinic" / "model.safetensors", finished / "clinic" / "task.py")
    saved = tensors.load(model_of(finished / "runs" / "clinic"))
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == {
        name: array.shape for name, array in saved.items()
    }
    assert not module.training


def test_a_finished_run_is_not_run_again(finished: Path) -> None:
    before = model_of(finished / "runs" / "clinic")
    said = fedbucket("run", "clinic/federation.toml", cwd=finished).stderr
    assert "it is not run again; for a new one take another folder with --out" in said
    assert model_of(finished / "runs" / "clinic") == before
    assert len(rounds_of(finished / "runs" / "clinic")) == ROUNDS


def test_status_verify_and_report_of_a_finished_run(finished: Path) -> None:
    assert f"finished after {ROUNDS} rounds" in fedbucket("status", "clinic", cwd=finished).stdout
    assert json.loads(fedbucket("status", "clinic", "--json", cwd=finished).stdout)["finished"] == "rounds"
    assert f"{ROUNDS} rounds, 0 bad" in fedbucket("verify", "clinic", cwd=finished).stdout
    (finished / "runs" / "clinic" / "report.html").unlink()
    fedbucket("report", "runs/clinic", cwd=finished)
    assert (finished / "runs" / "clinic" / "report.html").exists()


def test_the_bucket_of_a_run_tells_the_same_of_its_rounds_as_the_run(finished: Path) -> None:
    bucket = (finished / "runs" / "clinic" / "buckets" / "parent").as_uri()
    found = json.loads(fedbucket("report", bucket, "--json", cwd=finished).stdout)
    here_only = dict.fromkeys(("accuracy", "metrics", "seconds", "spans"))
    assert [line | here_only for line in found["rounds"]] == [
        line | here_only for line in rounds_of(finished / "runs" / "clinic")
    ]
    summary = json.loads((finished / "runs" / "clinic" / "summary.json").read_text())
    told = {"rounds", "planned_rounds", "clients", "settings_sha256", "model_sha256", "finished", "seed"}
    assert {name: found["summary"][name] for name in told} == {name: summary[name] for name in told}


def test_a_federation_in_a_real_bucket_begins_with_the_same_bytes(finished: Path) -> None:
    url = (finished / "begun").as_uri()
    fedbucket("start", "clinic/federation.toml", "--parent", url, "--task", "clinic/task.py", cwd=finished)
    run = contents(FileStore(finished / "runs" / "clinic" / "buckets" / "parent"))
    assert contents(FileStore(finished / "begun")).items() <= run.items()


def test_status_and_verify_take_the_url_of_a_parent_bucket(finished: Path, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    subprocess.run(["cp", "-r", str(finished / "runs" / "clinic" / "buckets" / "parent"), str(bucket)], check=True)
    assert f"{ROUNDS} rounds, 0 bad" in fedbucket("verify", bucket.as_uri(), cwd=tmp_path).stdout
    subprocess.run(["cp", "-r", str(bucket / "clinic"), str(bucket / "other")], check=True)
    assert "clinic, other" in fedbucket("status", bucket.as_uri(), cwd=tmp_path, status=1).stderr
    assert "finished" in fedbucket("status", bucket.as_uri(), "--federation", "clinic", cwd=tmp_path).stdout
    (bucket / "other" / "public" / "federation.json").unlink()  # what has no settings is no federation
    assert "clinic: finished" in fedbucket("status", bucket.as_uri(), cwd=tmp_path).stdout
    (bucket / "clinic" / "public" / "models" / f"{ROUNDS:06d}.safetensors").unlink()
    (bucket / "clinic" / "rounds" / "000000" / "cohort.json").unlink()
    assert "there is no such object" in fedbucket("verify", bucket.as_uri(), cwd=tmp_path, status=1).stdout
    assert (
        "expected third" in fedbucket("status", bucket.as_uri(), "--federation", "third", cwd=tmp_path, status=1).stderr
    )


def test_verify_finds_a_changed_model(finished: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", str(finished / "runs" / "clinic"), str(tmp_path / "copy")], check=True)
    assert "0 bad" in fedbucket("verify", tmp_path / "copy", cwd=tmp_path).stdout  # a copy has other versions
    model = tmp_path / "copy" / "buckets" / "parent" / "clinic" / "public" / "models" / "000002.safetensors"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    found = json.loads(fedbucket("verify", tmp_path / "copy", "--json", cwd=tmp_path, status=1).stdout)
    bad = {row["round"]: row["detail"] for row in found["rounds"] if row["verdict"] == "bad"}
    assert "the model has SHA-256" in bad.pop(1)
    assert "summary.json is not as its cohort gives it" in bad.pop(2)  # it says how far that round moved the model
    assert not bad


def test_chaos_changes_no_byte_of_the_model(finished: Path) -> None:
    fedbucket("run", "clinic/federation.toml", "--out", "runs/chaos", "--chaos", 7, cwd=finished)
    assert model_of(finished / "runs" / "chaos") == model_of(finished / "runs" / "clinic")


def test_a_killed_run_goes_on_to_the_same_bytes(finished: Path) -> None:
    command = [sys.executable, "-m", "fedbucket", "run", "clinic/federation.toml", "--out", "runs/killed"]
    models = finished / "runs" / "killed" / "buckets" / "parent" / "clinic" / "public" / "models"
    for wanted in (1, 3):
        process = subprocess.Popen(command, cwd=finished, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (models.exists() and len(list(models.iterdir())) >= wanted) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    fedbucket("run", "clinic/federation.toml", "--out", "runs/killed", cwd=finished)
    assert model_of(finished / "runs" / "killed") == model_of(finished / "runs" / "clinic")
    assert [line["round"] for line in rounds_of(finished / "runs" / "killed")] == list(range(ROUNDS))


def interrupted(command: list[str], folder: Path, when: Callable[[], bool]) -> str:
    """Press Ctrl-C, twice, once `when` holds; return what the program said."""
    # In the background of a script Ctrl-C is ignored, and what is ignored is inherited.
    heed: Callable[[], object] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not when() and time.monotonic() < deadline:
                time.sleep(0.005)
            for _ in range(2):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
                time.sleep(0.1)
            said = process.communicate(timeout=60)[1]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, said
    return said


def test_ctrl_c_ends_a_run_without_waiting_for_its_training_and_the_same_command_goes_on(finished: Path) -> None:
    task = finished / "clinic" / "task.py"
    sound = task.read_text()
    slow = "\n\ndef loss(output, target):\n    __import__('time').sleep(600)\n"
    command = [sys.executable, "-m", "fedbucket", "run", "clinic/federation.toml", "--out", "runs/interrupted"]
    run = finished / "runs" / "interrupted"
    task.write_text(sound + slow)
    try:
        for begun in (".running", "private/hospital-a/clinic/attempts/000000/0000.json"):  # workers start; they train
            said = interrupted(command, finished, (run / begun).exists)
            assert "the same command goes on from here" in said
            assert "Traceback" not in said
    finally:
        task.write_text(sound)
    fedbucket(*command[3:], cwd=finished)
    assert model_of(run) == model_of(finished / "runs" / "clinic")


def test_a_client_that_cannot_write_stops_the_run_with_the_reason_and_it_goes_on_once_that_is_mended(
    tmp_path: Path,
) -> None:
    federation = new_federation(tmp_path)
    in_the_way = tmp_path / "runs/clinic/private/hospital-c/clinic/releases"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("")
    said = fedbucket("run", federation, cwd=tmp_path, status=1).stderr
    assert "the timer of hospital-c: 8 attempts failed" in said
    assert "expected a folder where there is a file" in said
    in_the_way.unlink()
    fedbucket("run", federation, cwd=tmp_path)
    assert len(rounds_of(tmp_path / "runs" / "clinic")) == ROUNDS


def test_the_time_that_clients_train_is_told_where_a_timer_wakes_them_too(finished: Path) -> None:
    for line in rounds_of(finished / "runs" / "clinic"):
        spans = cast("list[list[object]]", line["spans"])
        assert {client for step, client, *_ in spans if step == "train"} == {"hospital-a", "hospital-b", "hospital-c"}


@pytest.mark.parametrize("name", ["rounds.jsonl", "summary.json"])
def test_a_log_of_a_run_that_is_no_json_is_named_and_written_anew(finished: Path, tmp_path: Path, name: str) -> None:
    subprocess.run(["cp", "-r", str(finished / "runs" / "clinic"), str(tmp_path / "copy")], check=True)
    log = tmp_path / "copy" / name
    log.write_text("x\n")
    said = fedbucket("report", tmp_path / "copy", cwd=tmp_path, status=1).stderr
    assert f"{name}: expected " in said
    assert "`fedbucket run` writes it anew" in said
    if name == "rounds.jsonl":
        log.unlink()
    fedbucket("run", finished / "clinic" / "federation.toml", "--out", tmp_path / "copy", cwd=tmp_path)
    assert [line["round"] for line in rounds_of(tmp_path / "copy")] == list(range(ROUNDS))
    fedbucket("report", tmp_path / "copy", cwd=tmp_path)


def test_a_run_starts_from_given_weights(finished: Path) -> None:
    given = finished / "runs" / "clinic" / "model.safetensors"
    fedbucket("run", "clinic/federation.toml", "--out", "runs/init", "--init", given, cwd=finished)
    first = finished / "runs" / "init" / "buckets" / "parent" / "clinic" / "public" / "models" / "000000.safetensors"
    saved, started = tensors.load(given.read_bytes()), tensors.load(first.read_bytes())
    assert all((saved[name] == started[name]).all() for name in saved)
    again = ("run", "clinic/federation.toml", "--out", "runs/init", "--init", given)
    fedbucket(*again, cwd=finished)
    other = finished / "runs" / "init" / "model.safetensors"
    assert "another first model" in fedbucket(*again[:-1], other, cwd=finished, status=1).stderr


def test_other_settings_do_not_take_over_a_run(tmp_path: Path) -> None:
    federation = new_federation(tmp_path)
    fedbucket("run", federation, cwd=tmp_path)
    federation.write_text(federation.read_text().replace("learning_rate = 0.5", "learning_rate = 0.25"))
    assert "other settings" in fedbucket("run", federation, cwd=tmp_path, status=1).stderr


def test_a_task_that_raises_is_named_and_the_run_goes_on_once_it_is_mended(tmp_path: Path) -> None:
    federation = new_federation(tmp_path)
    task = federation.parent / "task.py"
    sound = task.read_text()
    task.write_text(
        sound.replace("    rows = np.loadtxt", '    raise RuntimeError("no such ward")\n    rows = np.loadtxt')
    )
    said = fedbucket("run", federation, cwd=tmp_path, status=1).stderr
    assert "no such ward" in said
    assert "task.py" in said
    task.write_text(f"print('loaded')\n{sound}\n{REGRESSION}")
    done = fedbucket("run", federation, "--json", cwd=tmp_path)  # what a task prints is not among the results
    assert json.loads(done.stdout)["rounds"] == ROUNDS
    assert "loaded" in done.stderr
    assert len(rounds_of(tmp_path / "runs" / "clinic")) == ROUNDS
    assert "  mse                 0." in fedbucket("run", federation, cwd=tmp_path).stdout


def test_clients_that_do_not_agree_are_all_named_before_anything_begins(tmp_path: Path) -> None:
    federation = new_federation(tmp_path)
    federation.write_text(federation.read_text().replace('name = "clinic"', 'name = "renamed"'))
    said = fedbucket("run", federation, cwd=tmp_path, status=1).stderr
    assert said.count("has no [[agreement]] on 'renamed'") == 3
    assert str(federation.parent / "clients") in said
    assert not (tmp_path / "runs").exists()


def test_two_files_of_one_client_are_named(tmp_path: Path) -> None:
    federation = new_federation(tmp_path)
    copied = federation.parent / "clients" / "hospital-c.toml"
    copied.write_text(copied.read_text().replace('id = "hospital-c"', 'id = "hospital-a"'))
    said = fedbucket("run", federation, cwd=tmp_path, status=1).stderr
    assert 'hospital-a: expected one file with id = "hospital-a", got hospital-a.toml and hospital-c.toml' in said
    assert 'expected a file hospital-c.toml with id = "hospital-c"' in said


def test_a_client_that_pinned_other_settings_stops_the_run(tmp_path: Path) -> None:
    federation = new_federation(tmp_path)
    client = federation.parent / "clients" / "hospital-b.toml"
    client.write_text(client.read_text().replace('# settings_sha256 = "…"  ', f'settings_sha256 = "{"0" * 64}" #'))
    assert "hospital-b does not agree" in fedbucket("run", federation, cwd=tmp_path, status=1).stderr


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rounds = 4": "rounds = 0"}, "rounds"),
        ({"quorum = 2 ": "quorum = 9 "}, "quorum"),
        ({'mechanism = "none"': 'mechanism = "magic"'}, "mechanism"),
        ({"[privacy]": "[secrecy]"}, "privacy"),
        ({'id = "hospital-c"': 'id = "hospital-d"'}, "hospital-d"),
    ],
)
def test_a_mistake_in_the_settings_is_named(tmp_path: Path, change: dict[str, str], named: str) -> None:
    federation = new_federation(tmp_path, **change)
    assert named in fedbucket("run", federation, cwd=tmp_path, status=1).stderr


def test_what_is_not_there_is_said_without_a_traceback(tmp_path: Path) -> None:
    said = fedbucket("status", "nothing", cwd=tmp_path, status=1).stderr
    assert "expected a run's folder" in said
    assert "file:///" in said
    said = fedbucket("status", "ftp://bucket", cwd=tmp_path, status=1).stderr
    assert "expected file:///folder, gs://bucket" in said
    assert "does not exist" in fedbucket("run", "nothing.toml", cwd=tmp_path, status=2).stderr
    assert "name" in fedbucket("new", "Not A Name", cwd=tmp_path, status=1).stderr
    fedbucket("new", "twice", cwd=tmp_path)
    assert "exists already" in fedbucket("new", "twice", cwd=tmp_path, status=1).stderr
    (tmp_path / "file").write_text("")
    said = fedbucket("new", "file/clinic", cwd=tmp_path, status=1).stderr
    assert said == "Error: file/clinic: Not a directory\n"


def test_in_a_new_federation_one_row_less_moves_no_other_row_into_or_out_of_training(tmp_path: Path) -> None:
    """Otherwise the row counts twice, and the unit that is protected is half of what was agreed."""
    task = load_task(new_federation(tmp_path).parent / "task.py")
    header, *rows = (tmp_path / "clinic" / "data" / "hospital-c.csv").read_text().splitlines()

    def split(name: str, rows: list[str]) -> list[tuple[float, ...]]:
        (tmp_path / "rows.csv").write_text("\n".join([header, *rows]))
        return [tuple(inputs.tolist()) for inputs, _ in cast(Dataset, task.data(str(tmp_path / "rows.csv"), name))]

    for name in ("train", "validation"):
        whole = split(name, rows)
        assert len(whole) > 10
        for left_out in range(0, len(rows), 7):
            less = split(name, rows[:left_out] + rows[left_out + 1 :])
            assert [row for row in whole if row in less] == less
            assert len(whole) - len(less) in (0, 1)


def test_who_has_seen_enough_of_an_output_hears_no_more(finished: Path) -> None:
    command = [sys.executable, "-m", "fedbucket", "verify", "clinic"]
    with subprocess.Popen(command, cwd=finished, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_what_has_no_meaning_for_a_unit_is_refused(tmp_path: Path) -> None:
    command = ("privacy", "calibrate", "--epsilon", 2, "--delta", 1e-5, "--rounds", 10, "--clip-norm", 1)
    assert "Δ  L2 sensitivity       2" in fedbucket(*command, cwd=tmp_path).stdout
    said = fedbucket(*command, "--examples", 100, cwd=tmp_path, status=2).stderr
    assert "unit client takes neither --examples nor --learning-rate" in said
    assert "1<=x<=10000" in fedbucket(*command, "--rounds", 10**8, cwd=tmp_path, status=2).stderr  # it would take hours


@pytest.mark.parametrize(
    ("rounds", "reason", "said"),
    [
        (40, "rounds", "finished after 40 rounds"),
        (1, "rounds", "finished after 1 round"),
        (7, "tolerance", "stopped after 7 rounds: the model changed by less than the agreed tolerance"),
        (3, "void", "stopped after 3 rounds: three rounds in a row were void"),
        (5, "of a later version", "stopped after 5 rounds: of a later version"),
    ],
)
def test_how_it_ended_is_said_in_words(rounds: int, reason: str, said: str) -> None:
    assert ending(rounds, reason) == said


def test_settings_print_the_digest_that_clients_pin(finished: Path) -> None:
    done = fedbucket("settings", "clinic/federation.toml", cwd=finished)
    published = finished / "runs" / "clinic" / "buckets" / "parent" / "clinic" / "public" / "federation.json"
    assert done.stdout == published.read_text()
    assert (
        done.stderr.strip()
        == json.loads((finished / "runs" / "clinic" / "summary.json").read_text())["settings_sha256"]
    )


def test_every_command_has_help(tmp_path: Path) -> None:
    for command in (
        [],
        ["run"],
        ["status"],
        ["verify"],
        ["report"],
        ["new"],
        ["settings"],
        ["start"],
        ["prune"],
        ["privacy", "calibrate"],
    ):
        assert "Usage: " in fedbucket(*command, "--help", cwd=tmp_path).stdout
