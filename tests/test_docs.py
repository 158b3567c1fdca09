"""The documents hold what they say: their commands run, their links lead somewhere, and what they say of keys, fields,
codes, settings and bytes is what the code says.

Blocks marked `sh` are run, line by line, in a copy of the project; blocks marked `text` are not.
"""

import ast
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from urllib.parse import unquote

import click
import numpy as np
import pytest
from pydantic_core import PydanticUndefined

from aggregator.rounds import Parent, aggregate, record, start
from client import rounds as client_rounds
from client.privacy import ledger
from client.privacy.plan import make_plan
from exchange import functions, keys, records, tensors
from exchange.documents import Document, sha256
from exchange.events import ObjectCreated
from exchange.spec import ClientSettings, FederationSettings, ParentSettings
from exchange.stores.file import FileStore
from fedbucket.cli import main as fedbucket
from fedbucket.local.folder import LocalSettings
from tests.support.settings import CLIENTS, federation_settings

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(path for under in (".", "docs/**", "infra/**", "examples/**") for path in ROOT.glob(f"{under}/*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
FORMAT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
THREATS = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")

NOT_RUN = ("make test",)  # it would run this test
# minutes in all; `make test-all` runs them
SLOW = ("make breast-cancer", "make loans", "make cnn", "python -m examples")
LEFT_BEHIND = (".git", ".venv", "runs", ".*cache", ".hypothesis", "__pycache__", "build", "dist", "*.egg-info")

RECORDS: Mapping[str, type[Document]] = {
    kind.__name__: kind
    for module in (records, client_rounds, ledger)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Document) and kind.__module__ == module.__name__
}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, *languages: str) -> list[tuple[str, str]]:
    """Return the fenced blocks in these languages, in order: (language, content)."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(language, content) for language, content in found if language in languages]


def prose(text: str) -> str:
    """Return the text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(text: str) -> list[str]:
    return [heading.strip() for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)]


def section(text: str, title: str) -> str:
    """Return what stands under the one heading that is `title`, or begins so before a colon, up to the next heading."""
    parts = re.split(r"^#+ (.*)$", text, flags=re.MULTILINE)
    found = [body for head, body in zip(parts[1::2], parts[2::2], strict=True) if title in (head, head.split(":")[0])]
    assert len(found) == 1, f"{len(found)} sections are called {title!r}"
    return found[0]


def table(text: str) -> dict[str, list[str]]:
    """Return the rows of a section's table: what stands in code in the first column → the other columns."""
    rows = [re.split(r"(?<!\\)\|", line.strip("|\n")) for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)]
    cells = [[cell.strip() for cell in row] for row in rows]
    return {row[0].strip("`"): row[1:] for row in cells if row[0].startswith("`")}


# --- commands -------------------------------------------------------------------------------------------------------


def steps(path: Path) -> list[tuple[str, str]]:
    """Return what a document says to run, in order: shell commands one by one, Python blocks whole (README only)."""
    found: list[tuple[str, str]] = []
    for language, content in blocks(path.read_text(encoding="utf-8"), "sh", "python"):
        if language == "sh":
            found += [("sh", line) for line in content.splitlines() if line]
        elif path.name == "README.md":
            found.append((language, content))
    return [step for step in found if step[1] not in NOT_RUN]


def is_slow(step: tuple[str, str]) -> bool:
    return step[0] == "sh" and any(part in step[1] for part in SLOW)


WITH_STEPS = [path for path in DOCUMENTS if steps(path)]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project that uses the environment which runs this test, and installs nothing."""
    target = tmp_path / "fedbucket"
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    (target / ".venv").symlink_to(sys.prefix)
    return target


def run(step: tuple[str, str], folder: Path) -> None:
    language, content = step
    if language == "python":
        command = [".venv/bin/python", "-c", content]
    else:
        installed = "".join(f" --old-file=.venv/{stamp}" for stamp in ("python", "examples", "dev"))
        command = ["bash", "-ec", re.sub(r"^make\b", f"make{installed}", content)]
    ours = ("MAKE", "MFLAGS", "PYTEST")  # what this test was itself started by
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{content}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("path", WITH_STEPS, ids=named)
def test_the_commands_of_a_document_run_in_their_order(path: Path, copy: Path) -> None:
    shorten_examples(copy)
    for step in steps(path):
        if not is_slow(step):
            run(step, copy)


def shorten_examples(copy: Path) -> None:
    """Let the examples run two rounds, without baselines: whether a command runs does not hang on the rest."""
    for settings in copy.glob("examples/*/*.toml"):
        settings.write_text(re.sub(r"^rounds = \d+", "rounds = 2", settings.read_text(), flags=re.MULTILINE))
    prepare = copy / "examples" / "prepare.py"
    source, local = prepare.read_text(encoding="utf-8"), 'test = "data/test.npz"'
    assert local in source
    prepare.write_text(source.replace(local, f"baselines = false\\n{local}"), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["make demo", *(step[1] for path in WITH_STEPS for step in steps(path) if is_slow(step))]
)
def test_a_long_command_runs_in_full(command: str, copy: Path) -> None:
    run(("sh", command), copy)


def test_the_two_commands_of_the_readme_are_its_first_block() -> None:
    assert blocks(README, "sh")[0][1].splitlines() == ["make demo", "make test"]


def test_the_readme_names_every_command() -> None:
    named_there = {" ".join(re.findall(r"[a-z]+", row)) for row in table(section(README, "Commands"))}
    assert named_there == set(all_commands(fedbucket))


def all_commands(group: click.Group, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{before}{name} ")
        else:
            yield before + name


# --- links, and what may not be said --------------------------------------------------------------------------------


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(text)))


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, fragment = unquote(link).partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.is_relative_to(ROOT), f"{link}: outside the project"
        assert found.exists(), f"{link}: no such file"
        if fragment:
            assert fragment in map(anchor, headings(found.read_text(encoding="utf-8"))), f"{link}: no such heading"


def test_every_document_can_be_reached_from_the_readme() -> None:
    found, new = set(), [ROOT / "README.md"]
    while new:
        path = new.pop()
        found.add(path)
        targets = [(path.parent / link.partition("#")[0]).resolve() for link in links(path.read_text(encoding="utf-8"))]
        new += [target for target in targets if target.suffix == ".md" and target not in found]
    assert {path for path in DOCUMENTS if path not in found} == set()


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/images/*.[ps][nv]g")), ids=named)
def test_every_picture_is_shown_with_words_for_those_who_cannot_see_it(path: Path) -> None:
    shown = [
        words
        for document in DOCUMENTS
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", document.read_text(encoding="utf-8"))
        if (document.parent / target).resolve() == path
    ]
    assert shown
    assert all(len(words) > 20 for words in shown)


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_no_epsilon_is_printed_without_its_unit_and_delta(path: Path) -> None:
    for paragraph in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
        if re.search(r"ε\s*[=≤]\s*[\d.]", paragraph):
            assert "δ" in paragraph, paragraph
            assert re.search(r"unit|example|client", paragraph), paragraph


# --- docs/format.md -------------------------------------------------------------------------------------------------


def all_keys() -> Iterator[str]:
    """One key of every kind, with the values that the documents use."""
    values = {"federation": "readmission", "client": "hospital-a", "round": 7, "dataset": "admissions-2024"}
    for kind in get_args(keys.Key):
        numbers = {keys.Attempt: 3, keys.Checkpoint: 3, keys.LedgerEntry: 12}
        arguments = {
            field.name: numbers[kind] if field.name == "number" else values[field.name]
            for field in fields(kind)
            if field.name != "withdrawn"
        }
        yield str(kind(**arguments))
        if "withdrawn" in {field.name for field in fields(kind)}:
            yield str(kind(**arguments, withdrawn=True))


def test_the_format_names_every_key_and_no_other() -> None:
    found = set(table(section(FORMAT, "Keys")))
    assert found == set(all_keys())
    assert all(keys.parse(key) is not None for key in found)


@pytest.mark.parametrize("name", RECORDS)
def test_the_format_names_every_field_of_a_record_and_no_other(name: str) -> None:
    text = section(FORMAT, name)
    assert set(table(text)) == set(RECORDS[name].model_fields)
    for field in RECORDS[name].model_fields.values():
        for word in words_of(field.annotation):
            assert f"`{word}`" in text, f"{name}: {word}"


def words_of(annotation: Any) -> list[str]:
    """Return the words that a field of a closed list of words may hold."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in words_of(part)]


@pytest.mark.parametrize("name", ["Settings", *RECORDS])
def test_the_examples_in_the_format_are_sound_to_the_byte(name: str) -> None:
    kind = RECORDS.get(name, FederationSettings)
    for _, content in blocks(section(FORMAT, name), "json"):
        assert kind.from_bytes(content.encode(), "docs/format.md").to_bytes() == content.encode()


def test_the_examples_in_the_format_are_of_one_run() -> None:
    settings, ticket, finished, receipt, cohort, summary, pruned = (
        blocks(section(FORMAT, name), "json")[0][1].encode()
        for name in ("Settings", "Ticket", "Finished", "Receipt", "Cohort", "Summary", "Pruned")
    )
    digests = {json.loads(content)["settings_sha256"] for content in (ticket, finished)}
    assert digests == {sha256(settings)}
    assert json.loads(receipt)["update"] in json.loads(cohort)["members"]
    assert json.loads(summary)["rejected"] == json.loads(cohort)["rejected"]
    removed = {each["key"]: (each["size"], each["sha256"]) for each in json.loads(pruned)["removed"]}
    members = {each["key"]: (each["size"], each["sha256"]) for each in json.loads(cohort)["members"]}
    assert members.items() <= removed.items()


def test_the_format_gives_every_rejection_code_and_no_other() -> None:
    assert sorted(table(section(FORMAT, "Admission"))) == sorted(records.RejectionCode)


def test_the_format_names_every_dtype() -> None:
    text = section(FORMAT, "Weight files")
    assert all(f"`{dtype}`" in text for dtype in tensors.NUMPY_DTYPES)


def test_the_format_names_all_that_an_update_says_of_its_privacy() -> None:
    text = section(FORMAT, "Weight files")
    noise = {"epsilon": 4.0, "delta": 1e-5, "clip_norm": 1.0}
    for privacy in (
        {"mechanism": "ornstein-uhlenbeck", "unit": "client"} | noise,
        {"mechanism": "dp-sgd", "sampling_probability": 0.1} | noise,
    ):
        plan = make_plan(federation_settings(privacy=privacy), CLIENTS[0])
        assert plan is not None
        _, statement = plan.release({"weight": np.ones(3)}, lambda count: np.zeros(count))
        assert all(f"`{name}`" in text for name in statement), statement


def test_the_program_in_the_format_makes_the_same_bytes(tmp_path: Path) -> None:
    settings = federation_settings(rounds=2)
    bucket = _averaged(tmp_path, settings)
    (program,) = (content for _, content in blocks(FORMAT, "python") if "def next_model" in content)
    (tmp_path / "check.py").write_text(program, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "check.py"), str(bucket.root), settings.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["000001.safetensors good", "000002.safetensors good"], done.stderr


def test_an_update_written_as_the_format_says_is_accepted(tmp_path: Path) -> None:
    settings = federation_settings(clients=["alder"], quorum=1)
    bucket = FileStore(tmp_path / "bucket")
    start(bucket, settings, _model(settings))
    (source,) = (content for _, content in blocks(FORMAT, "python") if "def write_update" in content)
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    key = keys.Update(settings.name, "alder", 0)
    model, out = bucket.root / str(keys.Model(settings.name, 0)), tmp_path / "update.safetensors"
    namespace["write_update"](model, "alder", lambda weights: {name: w / 2 for name, w in weights.items()}, out)
    bucket.create(str(key), out.read_bytes())
    record(_parent(bucket), key)
    assert _receipt(bucket, settings, "alder").outcome == "accepted"


def _model(settings: FederationSettings) -> bytes:
    arrays = {
        "wide": np.linspace(-3, 3, 7),
        "weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
        "half": np.array([0.1, -65504.0], np.float16),
        "steps": np.array(12, np.int64),
        "mask": np.array([True, False, True]),
    }
    return tensors.dump(arrays, {"federation": settings.name, "round": "0"})


def _bfloat16(data: bytes, name: str) -> bytes:
    """Return a weight file with one tensor more, in a dtype that NumPy lacks."""
    layout = tensors.layout_of(data)
    shapes = {tensor.name: (tensor.dtype, tensor.shape) for tensor in layout.tensors.values()} | {name: ("BF16", (5,))}
    inside = data[layout.data_begin :]
    parts = {tensor.name: inside[tensor.begin : tensor.end] for tensor in layout.tensors.values()}
    parts[name] = tensors.encode("BF16", np.linspace(1, 1.1, 5) * len(data)).tobytes()
    return tensors.encode_header(shapes, layout.metadata) + b"".join(parts[each] for each in tensors.file_order(shapes))


def _averaged(folder: Path, settings: FederationSettings) -> FileStore:
    """Return the parent bucket of two rounds: all floating dtypes, updates in other dtypes, the second one the last."""
    bucket = FileStore(folder / "bucket")
    start(bucket, settings, _bfloat16(_model(settings), "brain"))
    for round_ in range(settings.rounds):
        for number, client in enumerate(settings.roster):
            rng = np.random.default_rng([round_, number])
            weights = {
                "wide": rng.normal(size=7).astype(np.float32),
                "weight": rng.normal(size=(2, 3)),
                "half": rng.normal(size=2).astype(np.float16),
                "brain": rng.normal(size=5).astype(np.float32),
            }
            metadata = {"federation": settings.name, "round": str(round_), "client": client}
            key = keys.Update(settings.name, client, round_)
            bucket.create(str(key), tensors.dump(weights, metadata))
            record(_parent(bucket), key)
            assert _receipt(bucket, settings, client, round_).outcome == "accepted"
        aggregate(_parent(bucket), settings.name, round_, "an event")
    return bucket


def _parent(bucket: FileStore) -> Parent:
    return Parent(bucket, lambda _: bucket, time_limit=0)


def _receipt(bucket: FileStore, settings: FederationSettings, client: str, round_: int = 0) -> records.Receipt:
    key = str(keys.Receipt(settings.name, round_, client))
    return records.Receipt.from_bytes(bucket.read(key), key)


# --- docs/operations.md ---------------------------------------------------------------------------------------------


def test_the_operations_name_every_field_of_a_log_line_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(functions.JsonLines())
    withdrawal = ObjectCreated("parent", "readmission/updates/hospital-a/000007.withdrawn.json", "an event")
    functions.on_object("gs", lambda: [withdrawal], lambda: functions.Side(None, "gs://parent", _log_error, print))
    written = {name for line in caplog.text.splitlines() for name in json.loads(line)}
    rows = table(section(OPERATIONS, "To watch"))
    assert {name for row in rows for name in re.findall(r"\w+", row)} == written
    assert all(f"`{step}`" in rows["step"][0] for step in [*functions.STEPS.values(), "sweep"])


def _log_error(_: ObjectCreated) -> None:
    try:
        raise ValueError("an example")
    except ValueError:
        functions.log.exception("an example")


# --- docs/threat-model.md -------------------------------------------------------------------------------------------


def named_tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {f"{named(path)}::{name}" for name in names if name.startswith("test_")}


def test_every_attempt_in_the_threat_model_names_the_tests_that_make_it() -> None:
    rows = [[cell.strip() for cell in row] for row in re.findall(r"^\| (.*) \| (.*) \| (.*)\|$", THREATS, re.MULTILINE)]
    attempts = [row for row in rows if row[0] != "it tries"]
    assert len(attempts) > 50
    for attempt, outcome, shown in attempts:
        found = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", shown)
        assert found or outcome.endswith("the deployment's part"), attempt
        for path, function in found:
            assert f"{path}::{function}" in named_tests(ROOT / path), attempt


def test_the_threat_model_names_every_test_of_enmity() -> None:
    made = set().union(*map(named_tests, ROOT.glob("tests/enmity/*.py")))
    assert made - set(re.findall(r"tests/[\w/]+\.py::\w+", THREATS)) == set()


# --- docs/settings.md -----------------------------------------------------------------------------------------------


def sections(kind: type[Document], heading: str) -> Iterator[tuple[str, type[Document]]]:
    """Yield (heading, settings) of all tables in a settings file."""
    yield heading, kind
    for name, field in kind.model_fields.items():
        found = documents(field.annotation)
        repeated = get_origin(field.annotation) is tuple
        for part in found:
            title = f"`[[{name}]]`" if repeated else f"`[{name}]`"
            if len(found) > 1:
                form, tag = next(iter(part.model_fields.items()))  # what tells one form of a table from the others
                title += f" with {form} = " + " or ".join(f'"{word}"' for word in get_args(tag.annotation))
            yield from sections(part, title)


def documents(annotation: Any) -> list[type[Document]]:
    if isinstance(annotation, type) and issubclass(annotation, Document):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in documents(part)]


ALL_SETTINGS = [
    *sections(FederationSettings, "`federation.toml`"),
    *sections(ClientSettings, "`client.toml`"),
    ("`parent.toml`", ParentSettings),  # its [[identity]] is the client's
    *sections(LocalSettings, "`local.toml`"),
]


@pytest.mark.parametrize(("heading", "kind"), ALL_SETTINGS, ids=[heading for heading, _ in ALL_SETTINGS])
def test_the_settings_name_every_setting_with_its_default_and_no_other(heading: str, kind: type[Document]) -> None:
    found = {name: row[0].strip("`") for name, row in table(section(SETTINGS, heading)).items()}
    assert found == {
        name: default(field) for name, field in kind.model_fields.items() if not documents(field.annotation)
    }


def default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required"
    return "none" if field.default is None else json.dumps(field.default)


def test_the_task_in_the_settings_has_the_functions_that_a_task_may_have() -> None:
    ((_, source),) = blocks(SETTINGS, "python")
    functions = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    task = (ROOT / "client" / "task.py").read_text(encoding="utf-8")
    described = ast.get_docstring(ast.parse(task)) or ""
    assert functions == set(re.findall(r"def (\w+)\(", described))
