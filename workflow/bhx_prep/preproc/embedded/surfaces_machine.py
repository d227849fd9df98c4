"""Requirements of surfaces: cat-surf, which the user installs, and templates. Needs neither ANTs nor nipype."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Final

from bhx_model.errors import SiteError

#: Ending of the file with the numbers of a T1w image's surfaces, or the reason why there are none.
QUALITY: Final = "desc-quality_surfaces.json"
#: What the folder of templates must hold besides the head.
TEMPLATES: Final = (
    "cerebrum.nii.gz",
    "cortex.npz",
    *(f"{kind}_{side}.surf.gii" for kind in ("surface", "sphere") for side in ("left", "right")),
)


def check_machine(templates: Path) -> None:
    """Refuse to start where the library or the templates are missing.

    Raises
    ------
    SiteError
        If so; says what to do.
    """
    if importlib.util.find_spec("cat_surf") is None:
        raise SiteError(f"preproc.surfaces: {how_to_get_cat_surf(sys.executable)}")
    for name in TEMPLATES:
        if not (templates / name).is_file():
            msg = f"no {templates / name}: make the templates anew, `python -m bhx_prep.atlas.fetch .. --surfaces`"
            raise SiteError(msg)


def has_cat_surf(python: Path) -> bool:
    """Whether another Python has the library."""
    asked = "import importlib.util, sys; sys.exit(importlib.util.find_spec('cat_surf') is None)"
    try:
        return subprocess.run([str(python), "-c", asked], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def how_to_get_cat_surf(python: str | Path) -> str:
    """Say how to get the library into the environment of a Python."""
    return (
        f"cat-surf (GPL-2.0-or-later) is not installed, `{python} -m pip install 'cat-surf>=1.1,<2'` does, "
        "or set preproc.surfaces: none"
    )
