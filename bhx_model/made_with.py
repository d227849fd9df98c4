"""Provenance of a result: versions of packages, and the commit of the code. Needs no torch."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bhx_model

#: Packages whose versions decide results.
PACKAGES = (
    "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "nibabel", "nilearn", "torch", "safetensors",
    "ml4fmri", "snakemake",
)  # fmt: skip
_CHECKOUT = Path(__file__).resolve().parents[1]


def made_with() -> dict[str, Any]:
    """Versions of this Python and of the packages that are installed, and the commit of the code.

    Returns
    -------
    dict
        ``commit``, as `commit` has it; ``python``; ``packages``, name to version.
    """
    found = {"bhx": bhx_model.__version__}  # of this code, whatever is installed beside it
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # an environment has what its steps need
    return {"commit": commit(), "python": platform.python_version(), "packages": found}


@cache
def commit(folder: Path = _CHECKOUT) -> str | None:
    """Commit of a checkout, with ``-dirty`` where tracked files differ from it; None where there is none, or no git."""
    if not (folder / ".git").exists():
        return None
    describe = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
