"""`fedbucket package`: what a cloud is given to run, as a zip; the same bytes for the same source, whoever makes it."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from exchange.errors import SettingsError

_BELOW = {"parent": ("exchange", "aggregator"), "client": ("exchange", "client")}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can tell
_MODE = 0o644 << 16


def package(cloud: str, out: Path, tasks: Sequence[Path]) -> list[Path]:
    """Write the functions of `cloud`, gcp or azure, into the folder `out`, and return the zips.

    Args:
        tasks: the client's task modules, which lie beside its function; without any, only the parent's zip is made.

    Raises:
        SettingsError: a task is no Python module, or two files of the client's zip would have one name. Nothing is
            written then.
    """
    zips = {out / f"{cloud}-parent.zip": list(_files(cloud, "parent"))}
    if tasks:
        zips[out / f"{cloud}-client.zip"] = [*_files(cloud, "client"), *(_module(task) for task in tasks)]
    for path, files in zips.items():
        _refuse_twice(path, [name for name, _ in files])
    out.mkdir(parents=True, exist_ok=True)
    for path, files in zips.items():
        _write(path, files)
    return list(zips)


def _module(task: Path) -> tuple[str, Path]:
    if task.suffix != ".py":
        raise SettingsError(str(task), ["expected a task, which is a Python module: NAME.py"])
    return task.name, task


def _refuse_twice(path: Path, names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(str(path), [f"{name}: more than one file of this name" for name in twice])


def _files(cloud: str, side: str) -> Iterator[tuple[str, Path]]:
    """Yield (name in the zip, file): the function's own folder, and the source of the packages below it."""
    for function in sorted(_folder(f"{cloud}_function").joinpath(side).iterdir()):
        if function.is_file():
            yield function.name, function
    for name in _BELOW[side]:
        folder = _folder(name)
        for source in sorted(folder.rglob("*.py")):
            yield f"{name}/{source.relative_to(folder).as_posix()}", source


def _folder(name: str) -> Path:
    return Path(next(iter(import_module(name).__path__)))


def _write(path: Path, files: list[tuple[str, Path]]) -> None:
    with ZipFile(path, "w", ZIP_STORED) as zip_:  # not compressed: zlib's output is not the same everywhere
        for name, file in sorted(files):
            info = ZipInfo(name, _EPOCH)
            info.external_attr = _MODE
            zip_.writestr(info, file.read_bytes())
