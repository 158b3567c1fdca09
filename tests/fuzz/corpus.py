"""The inputs that fuzzing found to reach different code, a zip a target: no later change need find them again."""

import hashlib
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

_FOLDER = Path(__file__).parent / "found"


def kept(target: str) -> list[bytes]:
    """Return the kept inputs of a target; none where there are none yet."""
    path = _FOLDER / f"{target}.zip"
    if not path.exists():
        return []
    with ZipFile(path) as found:
        return [found.read(name) for name in found.namelist()]


def keep(target: str, inputs: list[bytes]) -> None:
    """Keep these inputs, each once, and no others."""
    _FOLDER.mkdir(exist_ok=True)
    named = {hashlib.sha256(data).hexdigest()[:16]: data for data in inputs}
    with ZipFile(_FOLDER / f"{target}.zip", "w") as out:
        for name, data in sorted(named.items()):
            out.writestr(ZipInfo(name), data, ZIP_DEFLATED)
