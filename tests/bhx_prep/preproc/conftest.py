"""What tests of the preprocessing share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ants_python(root: Path) -> Path:
    """Python of the environment of the embedded preprocessing; a test is skipped where there is none."""
    python = root / ".venv-ants" / "bin" / "python"
    if not python.exists():
        pytest.skip("the environment of the embedded preprocessing is not here: make environments")
    return python
