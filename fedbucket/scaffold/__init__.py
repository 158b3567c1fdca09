"""`fedbucket new`: a federation folder that runs as it is, to be changed into one's own."""

from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from exchange.errors import SettingsError
from exchange.spec import check_identifier

_CLIENTS = {"hospital-a": 200, "hospital-b": 150, "hospital-c": 100}
_FEATURES = 8
_TEST_ROWS = 400


def new_federation(path: Path) -> list[Path]:
    """Write a federation folder at `path`, named for its last part, and return its files.

    Raises:
        SettingsError: the folder exists, or its name cannot be a federation's.
    """
    check_identifier(path.name)
    if path.exists():
        raise SettingsError(str(path), ["exists already; expected a new folder"])
    contents = {"federation.toml": _fill("federation.toml", name=path.name), "task.py": _fill("task.py")}
    contents["local.toml"] = _fill("local.toml")
    for client in _CLIENTS:
        contents[f"clients/{client}.toml"] = _fill("client.toml", name=path.name, client=client)
    contents |= {f"data/{name}.csv": rows for name, rows in _made_up_rows().items()}
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content, encoding="utf-8")
    return [path / name for name in contents]


def _fill(template: str, /, **values: str) -> str:
    return Template((files(__package__) / template).read_text(encoding="utf-8")).substitute(values)


def _made_up_rows() -> dict[str, str]:
    random = np.random.default_rng(0)
    plane = random.normal(size=_FEATURES)
    tables = {}
    for number, (name, count) in enumerate({**_CLIENTS, "test": _TEST_ROWS}.items()):
        inputs = random.normal(size=(count, _FEATURES))
        if name != "test":
            inputs[:, number] += 1.5  # each hospital sees other patients
        classes = (inputs @ plane + 0.5 * random.normal(size=count) > 0).astype(int)
        header = ",".join([*(f"feature_{number}" for number in range(_FEATURES)), "class"])
        rows = [
            ",".join([*(f"{value:.4f}" for value in row), str(label)])
            for row, label in zip(inputs, classes, strict=True)
        ]
        tables[name] = "\n".join([header, *rows]) + "\n"
    return tables
