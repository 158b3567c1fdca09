"""Environments for what is compared with: one a peer, made once, under a cache folder."""

import subprocess
import sysconfig
import venv
from pathlib import Path

OPACUS = ("opacus==1.6.0", "opt-einsum==3.4.0")


def opacus_python(cache: Path) -> Path:
    """Return the interpreter of an environment with Opacus and with this environment's torch, made if it is missing."""
    return _python(cache.resolve() / "opacus-1.6", OPACUS)


def _python(home: Path, packages: tuple[str, ...]) -> Path:
    # It borrows all else from this environment, so that both sides run the very same build of torch.
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        site = next((home / "lib").glob("python*/site-packages"))
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *packages], check=True)
        (home / "ready").touch()
    return python
