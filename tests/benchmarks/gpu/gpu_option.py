"""The pytest option of tests/conftest.py, for a machine on which only what test_gpu.py needs is installed."""

from __future__ import annotations

import os


def pytest_addoption(parser):
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: seconds rather than milliseconds")
    if config.getoption("--device") == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
