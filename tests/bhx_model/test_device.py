"""The device of a process, and GPUs that PyTorch cannot use: pretended, for none is needed."""

from __future__ import annotations

import warnings

import pytest
import torch

from bhx_model import device, gpus
from bhx_model.errors import ConfigError, SiteError

TOO_OLD = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update"
)


@pytest.fixture
def cuda(monkeypatch):
    """Set what PyTorch says of CUDA."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch, "__version__", "2.11.0")

    def says(works, warning=None):
        def is_available():
            if warning:
                warnings.warn(warning, stacklevel=1)
            return works

        monkeypatch.setattr(torch.cuda, "is_available", is_available)

    return says


def test_the_first_gpu_or_the_cpu(cuda):
    cuda(True)
    assert device.default_device() == torch.device("cuda")
    cuda(False)
    assert device.default_device() == torch.device("cpu")


def test_a_driver_that_is_too_old_is_a_sentence_with_the_versions(cuda, pretended_gpus):
    pretended_gpus("GPU-a")
    cuda(False, TOO_OLD)
    with pytest.raises(SiteError) as error:
        device.default_device()
    said = str(error.value)
    assert "PyTorch 2.11.0 for CUDA 13.0" in said
    assert "(535.54, up to CUDA 11.4)" in said
    assert len(said) <= 200


def test_gpus_that_were_taken_and_cannot_be_used_are_a_sentence(cuda, monkeypatch):
    monkeypatch.setenv(gpus.TAKEN, "2")
    cuda(
        False,
        "CUDA initialization: CUDA unknown error - this may be due to an incorrectly set up environment",
    )
    with pytest.raises(
        SiteError, match=r"finds none of this machine's GPUs .CUDA initialization: CUDA unknown"
    ) as error:
        device.cuda_works()
    assert len(str(error.value)) <= 200
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(SiteError, match=r"PyTorch 2.11.0 is built without CUDA"):
        device.cuda_works()


def test_what_else_cuda_says_is_logged_where_no_gpu_was_asked_for(cuda, monkeypatch, caplog):
    monkeypatch.delenv(gpus.TAKEN, raising=False)
    cuda(False, "something else")
    assert not device.cuda_works()
    assert "something else" in caplog.text


def test_the_gpu_of_an_apple_computer_is_used_where_it_is_named(cuda, monkeypatch):
    cuda(True)
    monkeypatch.setenv(device.DEVICE, "mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device.default_device() == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SiteError, match="finds no GPU of Apple here: set device: auto"):
        device.default_device()
    monkeypatch.setenv(device.DEVICE, "cpu")
    assert device.default_device() == torch.device("cpu")
    monkeypatch.setenv(device.DEVICE, "apple")
    with pytest.raises(ConfigError, match="BHX_DEVICE is 'apple': set it to auto, cpu or mps"):
        device.default_device()
