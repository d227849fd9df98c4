"""Select the device to compute on, with an error message if PyTorch cannot use the GPU that is there."""

from __future__ import annotations

import logging
import os
import re
import warnings
from typing import Final

import torch

from bhx_model import gpus
from bhx_model.errors import ConfigError, SiteError

logger = logging.getLogger(__name__)


#: Environment variable that names the device of embedding and probes, as `device` of the configuration does.
DEVICE: Final = "BHX_DEVICE"
DEVICES: Final = ("auto", "cpu", "mps")


def default_device() -> torch.device:
    """What `DEVICE` names; else the first GPU that this process sees, and the CPU where it sees none.

    Raises
    ------
    ConfigError
        If it names none of `DEVICES`.
    SiteError
        If there is no such device here; as `cuda_works`.
    """
    named = os.environ.get(DEVICE, "auto")
    if named not in DEVICES:
        raise ConfigError(f"{DEVICE} is {named!r}: set it to {', '.join(DEVICES[:-1])} or {DEVICES[-1]}")
    if named == "mps" and not torch.backends.mps.is_available():
        raise SiteError(
            f"device is mps, and PyTorch {torch.__version__} finds no GPU of Apple here: set device: auto"
        )
    if named != "auto":
        return torch.device(named)
    return torch.device("cuda" if cuda_works() else "cpu")


def cuda_works() -> bool:
    """Whether PyTorch can use a GPU.

    Raises
    ------
    SiteError
        If the driver is too old for this PyTorch, or GPUs were taken for this process (`gpus.reserve`) that it cannot use.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        works = torch.cuda.is_available()
    if works:
        return True
    said = [str(warning.message) for warning in caught]
    wheel = f"PyTorch {torch.__version__} for CUDA {torch.version.cuda}"
    for text in said:
        if re.search(r"driver .*too old", text, flags=re.DOTALL):
            raise SiteError(
                f"{wheel} needs a newer NVIDIA driver than this machine's{_version(text)}: update it, or install another"
                f" PyTorch, or set {gpus.VISIBLE}= to use the CPU"
            )
    taken = os.environ.get(gpus.TAKEN, "0") not in ("", "0")
    if taken and torch.version.cuda is None:
        raise SiteError(
            f"PyTorch {torch.__version__} is built without CUDA, and GPUs are asked for: install one with it, or set gpus: 0"
        )
    if taken:
        why = f" ({said[0].splitlines()[0][:80]})" if said else ""
        raise SiteError(f"{wheel} finds none of this machine's GPUs{why}: correct the driver, or set gpus: 0")
    for text in said:
        logger.warning("%s", text)
    return False


def _version(text: str) -> str:
    """The driver's version in words, from nvidia-smi and from PyTorch's warning about it."""
    found = re.search(r"found version (\d+)", text)
    driver = next((gpu.driver for gpu in gpus.present() if gpu.driver), "")
    knows = f"CUDA {int(found[1]) // 1000}.{int(found[1]) % 1000 // 10}" if found else ""
    words = ", ".join(word for word in (driver, f"up to {knows}" if knows else "") if word)
    return f" ({words})" if words else ""
