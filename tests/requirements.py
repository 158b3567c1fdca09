"""`python -m tests.requirements` writes the requirements of each function anew: all that it needs, each pinned.

From the extras in pyproject.toml and the pins in constraints.txt; what needs what is read from what is installed here.
"""

import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FUNCTIONS = {
    "gcp_function/parent": ("gcp-function",),
    "gcp_function/client": ("gcp-function", "client"),
    "azure_function/parent": ("azure-function",),
    "azure_function/client": ("azure-function", "client"),
}
PYTHONS = ("3.11", "3.12", "3.13")  # the ones on which the functions run


def pins() -> dict[str, str]:
    """The versions in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines if "==" in line}


def needed(function: str) -> str:
    """Return the text of a function's requirements.txt."""
    found: dict[str, Requirement] = {}
    waiting = [*_declared(""), *(each for extra in FUNCTIONS[function] for each in _declared(extra))]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name == "fedbucket":
            waiting += [each for extra in requirement.extras for each in _declared(extra)]
        elif name not in found or requirement.extras - found[name].extras:
            found[name] = requirement
            waiting += _requires(requirement)
    versions = pins()
    return "".join(f"{name}=={versions[name]}\n" for name in sorted(found))


def _declared(extra: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [Requirement(text) for text in texts]


def _requires(requirement: Requirement) -> Iterator[Requirement]:
    try:
        texts = requires(requirement.name) or []
    except PackageNotFoundError:  # of another Python than this: its own needs are its own affair
        texts = []
    for each in map(Requirement, texts):
        if each.marker is None or any(_applies(each, extra) for extra in {"", *requirement.extras}):
            yield each


def _applies(requirement: Requirement, extra: str) -> bool:
    assert requirement.marker is not None
    return any(
        requirement.marker.evaluate(
            {"extra": extra, "python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux"}
        )
        for version in PYTHONS
    )


def main() -> None:
    for function in FUNCTIONS:
        (ROOT / function / "requirements.txt").write_text(needed(function))


if __name__ == "__main__":
    main()
