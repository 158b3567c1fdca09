"""The house, from the code's own imports: dependency goes one way, down; clouds and torch stay in their rooms."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from exchange import errors

ROOT = Path(__file__).parents[1]

# What each part of the house may import of the others. The longest name that fits counts.
FLOORS: dict[str, set[str]] = {
    "exchange": set(),
    "aggregator": {"exchange"},
    "client": {"exchange"},
    "fedbucket": {"exchange", "aggregator", "client"},
    "gcp_function": set(),
    "gcp_function/parent": {"exchange", "aggregator"},
    "gcp_function/client": {"exchange", "client"},
    "azure_function": set(),
    "azure_function/parent": {"exchange", "aggregator"},
    "azure_function/client": {"exchange", "client"},
    "examples": {"exchange", "aggregator", "client", "fedbucket"},
    "benchmarks": {"exchange", "aggregator", "client", "fedbucket", "examples"},
    "tests": {"exchange", "aggregator", "client", "fedbucket", "examples", "benchmarks"},
}
HOUSE = {floor for floor in FLOORS if "/" not in floor}
PACKAGES = ("exchange", "aggregator", "client", "fedbucket")  # what pip installs
NOT_SOURCE = {"build", "dist", "runs"}

# Rooms: an import of one of these belongs below one of those paths, and nowhere else.
CLOUDS = {"google", "azure", "boto3", "botocore", "requests", "urllib3", "functions_framework", "cloudevents"}
CLOUD_ROOMS = ("exchange/stores/", "gcp_function/", "azure_function/", "fedbucket/emulators/", "tests/")
TORCH = {"torch"}
TORCH_ROOMS = (
    "client/",
    "examples/",
    "benchmarks/",
    "tests/",
    "fedbucket/local/workers.py",  # clients' training, in processes of their own
    "fedbucket/scaffold/task.py",  # the file that an organisation begins with
)
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}

# Where a module is not called as its distribution.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "markupsafe": "jinja2", "werkzeug": "moto"}


@dataclass(frozen=True)
class Import:
    """One import of one file.

    Attributes:
        module: in full, `client.privacy`.
        typing: whether only type checkers see it.
    """

    path: str
    line: int
    module: str
    typing: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def sources() -> list[Path]:
    """Every Python file of the repository, whether tracked or not."""
    tops = [top for top in ROOT.iterdir() if top.name[0] != "." and top.name not in NOT_SOURCE]
    return sorted(file for top in tops for file in ([top] if top.suffix == ".py" else top.rglob("*.py")))


def imports_of(path: Path) -> Iterator[Import]:
    """All imports, also those inside functions."""
    name, tree = path.relative_to(ROOT).as_posix(), ast.parse(path.read_bytes())
    unseen = {id(node) for block in ast.walk(tree) if is_typing_block(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from client import rounds` is an import of client.rounds, or of a name in client: the top is the same
            modules = [absolute(path, node)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "__import__",
            "importlib.import_module",
            "import_module",
        ):
            modules = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
        else:
            continue
        yield from (Import(name, node.lineno, str(module), id(node) in unseen) for module in modules)


def is_typing_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = path.relative_to(ROOT).parent.parts
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


IMPORTS = [found for path in sources() for found in imports_of(path)]


def floor_of(path: str) -> str:
    return max((floor for floor in FLOORS if path.startswith(f"{floor}/")), key=len, default="")


def outside(rooms: tuple[str, ...], modules: set[str], typing: bool = True) -> list[str]:
    return [
        str(found)
        for found in IMPORTS
        if found.top in modules and not found.path.startswith(rooms) and (typing or not found.typing)
    ]


def test_the_imports_are_seen() -> None:
    """Of this very test: a parser that sees nothing would pass everything."""
    assert len(IMPORTS) > 200
    assert {"exchange", "aggregator", "client", "torch", "numpy", "pydantic"} <= {found.top for found in IMPORTS}
    assert any(found.path == "aggregator/rounds.py" and found.module == "exchange.events" for found in IMPORTS)


def test_every_python_file_belongs_to_a_known_package() -> None:
    strays = [path for path in sources() if path.relative_to(ROOT).parts[0] not in HOUSE | {"docs", "infra"}]
    assert not strays


def test_every_folder_of_an_installed_package_is_a_package() -> None:
    folders = {path.parent for path in sources() if path.relative_to(ROOT).parts[0] in PACKAGES}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_floors_only_import_downwards() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if found.top in HOUSE
        and found.top != floor_of(found.path).partition("/")[0]
        and found.top not in FLOORS[floor_of(found.path)]
    ]
    assert not wrong


def test_the_parents_side_and_the_clients_never_import_each_other() -> None:
    assert "client" not in FLOORS["aggregator"] | FLOORS["exchange"]
    assert "aggregator" not in FLOORS["client"] | FLOORS["exchange"]
    sides = {"aggregator/": "client", "client/": "aggregator"}
    assert not [
        str(found)
        for found in IMPORTS
        for side, other in sides.items()
        if found.path.startswith(side) and found.top == other
    ]


def test_cloud_sdks_stay_with_the_stores_and_the_functions() -> None:
    assert outside(CLOUD_ROOMS, CLOUDS) == []


def test_torch_stays_with_the_clients() -> None:
    assert outside(TORCH_ROOMS, TORCH, typing=False) == []


def test_nothing_is_ever_pickled() -> None:
    assert outside((), PICKLES) == []


def test_nothing_but_the_retention_command_removes_an_object() -> None:
    """And the stores, which are asked to; conformance clears the prefix that it made by the SDKs."""
    rooms = ("exchange/stores/", "fedbucket/retention.py", "tests/")
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and node.attr in {"remove", "_remove"}
    ]
    assert any(call.startswith("fedbucket/retention.py") for call in calls), "a parser that sees nothing passes all"
    assert [call for call in calls if not call.startswith(rooms)] == []


HEAVY = ["torch", "scipy", "sklearn", "dp_accounting", "jinja2", "google.cloud.storage", "azure.core", "boto3"]


def modules_of(package: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return [name for name in names if not name.startswith("exchange.stores.")]


def loaded_by(modules: list[str]) -> list[str]:
    """Which of HEAVY a new process holds that has imported `modules`."""
    code = f"import sys, {', '.join(modules)}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_parents_side_starts_without_what_only_clients_need() -> None:
    modules = modules_of("exchange") + modules_of("aggregator")
    assert {"aggregator.rounds", "exchange.stores"} <= set(modules)
    assert loaded_by(modules) == []


def test_the_command_line_starts_without_torch_and_the_clouds() -> None:
    loaded = loaded_by(["fedbucket", "fedbucket.cli"])
    assert not {"torch", "google.cloud.storage", "azure.core", "boto3"} & set(loaded)


def test_what_is_loaded_is_seen() -> None:
    assert loaded_by(["jinja2"]) == ["jinja2"]


# What is installed


def read_pyproject() -> dict[str, list[Requirement]]:
    """Requirements by extra; those of everybody under ''."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [Requirement(text) for text in texts] for extra, texts in extras.items()}


def read_constraints() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = [line.split("==") for line in lines if line]
    assert all(len(pin) == 2 for pin in pins), "every line of constraints.txt is name==version"
    names = [canonicalize_name(name) for name, _ in pins]
    assert len(set(names)) == len(names), "no name is pinned twice"
    return {canonicalize_name(name): version for name, version in pins}


def declared(*extras: str) -> set[str]:
    return {canonicalize_name(requirement.name) for extra in extras for requirement in read_pyproject()[extra]}


def test_every_dependency_has_a_pin_that_it_allows() -> None:
    pins = read_constraints()
    for requirements in read_pyproject().values():
        for requirement in requirements:
            if (name := canonicalize_name(requirement.name)) != "fedbucket":
                assert name in pins, f"{name} has no pin in constraints.txt"
                assert requirement.specifier.contains(pins[name]), f"{requirement} does not allow {pins[name]}"


def test_every_floor_imports_only_what_is_installed_with_it() -> None:
    installed = {
        "exchange": declared(""),
        "aggregator": declared(""),
        "client": declared("", "client"),
        "fedbucket": declared("", "client", "local", "emulators"),
        "examples": declared("", "client", "local", "examples"),
    }
    wrong = [
        str(found)
        for found in IMPORTS
        if (floor := found.path.partition("/")[0]) in installed
        and found.top not in HOUSE | sys.stdlib_module_names | CLOUDS
        and canonicalize_name(DISTRIBUTIONS.get(found.top, found.top)) not in installed[floor]
    ]
    assert not wrong


# The exceptions


def drawn_tree() -> dict[str, str]:
    """Child → parent, as drawn in the docstring of exchange/errors.py."""
    path: list[str] = []
    parents = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ((?:│   |    )*)(?:[├└]── )(\w+)", line):
            depth = len(match[1]) // 4 + 1
            path = [*path[:depth], match[2]]
            parents[match[2]] = path[depth - 1]
        elif match := re.fullmatch(r"    (\w+)", line):
            path = [match[1]]
    return parents


EXCEPTIONS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


def test_the_tree_of_exceptions_is_drawn_as_it_is() -> None:
    bases = {kind.__name__: kind.__base__.__name__ for kind in EXCEPTIONS if kind.__base__ is not None}
    assert bases.pop("FedbucketError") == "Exception"
    assert drawn_tree() == bases


def test_every_exception_is_defined_in_the_tree() -> None:
    """So that what fedbucket raises on purpose can be caught as one."""
    names = {kind.__name__ for kind in EXCEPTIONS}
    strays = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sources()
        if path.relative_to(ROOT).parts[0] in PACKAGES and path != ROOT / "exchange/errors.py"
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ClassDef)
        for base in map(ast.unparse, node.bases)
        if base.endswith(("Error", "Exception")) or base.rpartition(".")[2] in names
    ]
    assert not strays
