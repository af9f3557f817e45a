"""The device that a command was asked to run on."""

import torch

from misc.errors import UserError


def default_device() -> str:
    """Returns "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(name: str, index: int | None = None) -> torch.device:
    """Returns a device that this machine has.

    Args:
        name: cpu, cuda or cuda:N.
        index: which CUDA device a plain "cuda" means; None leaves it to torch.

    Raises:
        UserError: not a device, or none that is here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name} is not a device; expected cpu, cuda or cuda:N") from None
    if device.type == "cuda" and device.index is None and index is not None:
        device = torch.device("cuda", index)
    if device.type == "cpu":
        return device
    if device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices here; use --device cpu")
    return device
