"""Environments for what is compared with: one a peer, made once, under a cache folder."""

import subprocess
import sysconfig
import venv
from pathlib import Path

OPACUS = ("opacus==1.6.0", "opt-einsum==3.4.0")
FLOWER = (
    *("flwr==1.42.0", "annotated-doc==0.0.7", "grpcio==1.85.1", "httpx==0.28.1", "iterators==0.0.2"),
    *("pycryptodome==3.23.0", "rich==14.3.4", "shellingham==1.5.4", "typer==0.20.1"),
)
NVFLARE = ("nvflare==2.9.0", "grpcio==1.85.1", "msgpack==1.2.4", "psutil==7.2.2")


def opacus_python(cache: Path) -> Path:
    """Return the interpreter of an environment with Opacus and with this environment's torch, made if it is missing."""
    return _python(cache.resolve() / "opacus-1.6", OPACUS)


def flower_python(cache: Path) -> Path:
    """Return the interpreter of an environment with Flower and what its aggregation imports, and this one's NumPy."""
    return _python(cache.resolve() / "flower-1.42", FLOWER)


def nvflare_python(cache: Path) -> Path:
    """Return the interpreter of an environment with NVFlare and what its aggregation imports, and this one's NumPy."""
    return _python(cache.resolve() / "nvflare-2.9", NVFLARE)


def _python(home: Path, packages: tuple[str, ...]) -> Path:
    # It borrows all else from this environment, so that both sides run the very same build of torch and NumPy.
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        site = next((home / "lib").glob("python*/site-packages"))
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *packages], check=True)
        (home / "ready").touch()
    return python
