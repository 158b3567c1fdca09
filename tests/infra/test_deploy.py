"""What docs/deploy.md has people type: its commands need accounts and are not run, but they name what there is."""

import re
from pathlib import Path

import pytest

from fedbucket.cli import main as fedbucket
from tests.infra.terraform import EXAMPLES, INFRA, blocks, text_of

DEPLOY = (INFRA.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
LINES = [
    line
    for block in re.findall(r"^```text\n(.*?)^```$", DEPLOY, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


def folder_of(line: str) -> Path | None:
    return INFRA.parent / line.removeprefix("cd ") if line.startswith("cd ") else None


def test_every_folder_is_an_example():
    folders = [folder for folder in map(folder_of, LINES) if folder]
    assert len(set(folders)) == 3
    assert set(folders) <= set(EXAMPLES)


def test_every_fedbucket_command_is_one():
    typed = [re.findall(r"[a-z]+", line.split(" -")[0])[1:] for line in LINES if line.startswith("fedbucket ")]
    assert len(typed) >= 6
    for words in typed:
        command = fedbucket.commands.get(words[0])
        assert command is not None, words
        if group := getattr(command, "commands", None):
            assert words[1] in group, words


@pytest.mark.parametrize(
    "example", sorted({folder for folder in map(folder_of, LINES) if folder}), ids=lambda each: each.name
)
def test_every_variable_and_output_is_there(example: Path):
    typed = typed_in(example)
    variables = blocks(example, "variable")
    given = [name for line in typed for name in re.findall(r"-var '?(\w+)=", line)]
    assert given
    assert set(given) <= variables.keys()
    assert {name for name, variable in variables.items() if "default" not in variable} <= set(given)
    outputs = [name for line in typed for name in re.findall(r"terraform output -\w+ (\w+)", line)]
    assert outputs
    assert set(outputs) <= blocks(example, "output").keys()


def test_the_libraries_are_for_the_python_that_azure_runs():
    app = blocks(INFRA / "modules" / "functions-azure", "resource")["azurerm_function_app_flex_consumption.this"]
    assert f"--python-version {text_of(app['runtime_version'])} " in " ".join(LINES)


def typed_in(example: Path) -> list[str]:
    """Return what is typed in an example's folder, from the `cd` to the next one."""
    found, here = [], False
    for line in LINES:
        here = folder_of(line) == example if line.startswith("cd ") else here
        found += [line] if here else []
    return found


def test_all_that_is_alerted_on_is_listed():
    text = " ".join(path.read_text(encoding="utf-8") for path in INFRA.glob("modules/*/*.tf"))
    titles = set(re.findall(r'title += "([^"]+)"', text)) - {"one bucket", "tickets", "updates and withdrawals"}
    listed = re.search(r"## Who is told of what\n(.*?)\n## ", DEPLOY, re.DOTALL)
    assert listed is not None
    for title in titles:
        assert title.removeprefix("an ").removeprefix("a ") in listed[1], title
