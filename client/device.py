"""Where torch computes."""

import re

from exchange.errors import SettingsError


def check_device(device: str, source: str) -> None:
    """Raise SettingsError unless torch can compute on `device` here; only a device other than "cpu" imports torch.

    Args:
        source: the settings that name the device, as an error calls them.
    """
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", device):
        raise SettingsError(source, [f'device: expected "cpu", "cuda", "cuda:1", … or "mps", got "{device}"'])
    if device != "cpu" and (problem := _problem(device)):
        raise SettingsError(source, [f'device: "{device}": {problem}, or take "cpu"'])


def _problem(device: str) -> str | None:
    import torch

    if device == "mps":
        found = torch.backends.mps.is_available()
        return None if found else f"torch {torch.__version__} finds no Apple GPU here; install a build for macOS"
    count, index = torch.cuda.device_count(), int(device.partition(":")[2] or 0)
    if index < count:
        return None
    return (
        f"torch {torch.__version__} finds {count} CUDA devices here; check the driver (nvidia-smi), install a CUDA "
        "build of torch (https://pytorch.org/get-started)"
    )
