"""A folder that the user may not read: root, who may, runs some tests."""

from __future__ import annotations

import os

import pytest


def refuse(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Let no folder be listed whose path ends so."""
    scandir = os.scandir

    def refused(place):
        if str(place).endswith(ending):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refused)
