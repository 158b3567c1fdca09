"""What the tests of `infra/` share: its files, read as HCL, and Terraform, where there is one."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import hcl2

INFRA = Path(__file__).parents[2] / "infra"
MODULES = sorted(path for path in (INFRA / "modules").iterdir() if path.is_dir())
EXAMPLES = sorted(path.parent for path in INFRA.glob("examples/*/*/main.tf"))


def named(path: Path) -> str:
    return path.relative_to(INFRA).as_posix()


def blocks(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return the blocks of a kind (`variable`, `output`, `resource`) in a folder's .tf files, by label or labels."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.tf")):
        for block in _parsed(path).get(kind, []):
            labels, body = [], block
            while "__is_block__" not in body:
                ((label, body),) = body.items()
                labels.append(label.strip('"'))
            found[".".join(labels)] = body
    return found


@cache
def _parsed(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = hcl2.loads(path.read_text(encoding="utf-8"))
    return found


def text_of(value: Any) -> str:
    """Return a string literal without its quotes, anything else as an expression."""
    text = str(value)
    quoted = text.startswith('"')
    return json.loads(text) if quoted else text.removeprefix("${").removesuffix("}")


def apply(module: Path, folder: Path, variables: dict[str, Any]) -> dict[str, Any]:
    """Apply a module that has no provider, in `folder`, and return its outputs."""
    target = folder / module.name
    shutil.copytree(module, target, ignore=shutil.ignore_patterns("tests", ".terraform*"))
    (target / "test.auto.tfvars.json").write_text(json.dumps(variables), encoding="utf-8")
    _run(target, "init", "-backend=false", "-input=false")
    _run(target, "apply", "-auto-approve", "-input=false")
    outputs: dict[str, Any] = json.loads(_run(target, "output", "-json"))
    return {name: output["value"] for name, output in outputs.items()}


def _run(folder: Path, *arguments: str) -> str:
    # No one's own configuration: a plug-in cache or a mirror of this machine must not decide.
    environment = os.environ | {"TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    command = ["terraform", *arguments, *(["-no-color"] if arguments[0] != "output" else [])]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
