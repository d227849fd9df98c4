"""Settings as the files that jobs read them from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bhx_prep.config.resolved import SettingsFolder

_FOLDER = tempfile.TemporaryDirectory(prefix="bhx-settings-")  # removed when the tests end
_FILES = SettingsFolder(Path(_FOLDER.name), write=True)


def settings_file(value: Any) -> str:
    """Path of a JSON file with `value`."""
    return str(_FILES.file("value", value))
