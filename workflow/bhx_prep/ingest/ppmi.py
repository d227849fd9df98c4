"""PPMI: BIDS made from the archive's zip files.

The Image and Data Archive gives zips of DICOM files (``PPMI_01.zip``, split into ``PPMI_01.zip.aa`` ..) that unpack to
``PPMI/<PATNO>/<series>/<date>/<image id>/``. The layout is documented with PyPMI and ppmitobids (R. Markello), which
like dcm2bids and HeuDiConv make of it::

    participants.tsv
    sub-3000/                                               PATNO 3000
        ses-1/ (or ses-BL, ses-V04: EVENT_ID)
            anat/sub-3000_ses-1_T1w.nii.gz
            func/sub-3000_ses-1_task-rest_bold.nii.gz       also with dir-AP or dir-PA

It is BIDS and listed as such; the archive's own files are refused with a word on what to do.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from bhx_model.errors import DataError
from bhx_prep.ingest.layouts import Layout, first_folder
from bhx_prep.io import archives

_PATNO = re.compile(r"\d{4,6}")


def unconverted(root: Path) -> str | None:
    """Why a root is none, where it holds zips or folders of the archive itself."""
    zips = sorted(path.name for path in root.glob("*.zip*"))
    if zips:
        if _holds_bids(root / zips[0]):
            return f"{zips[0]} holds BIDS: unpack it, preprocessing needs files"
        return f"{zips[0]} is of the archive, not BIDS: unpack it, and convert it with dcm2bids or HeuDiConv"
    found = first_folder(root, _PATNO) or first_folder(root / "PPMI", _PATNO)
    if found is None:
        return None
    return f"{found} is a folder of the archive, not BIDS: convert it with dcm2bids or HeuDiConv"


def _holds_bids(archive: Path) -> bool:
    try:
        return any("/sub-" in f"/{name}" for name in archives.members(archive))
    except DataError:
        return False


def label(spelt: str) -> str:
    """``3000`` of ``3000``, ``3000.0`` or ``PPMI3000``."""
    return re.sub(r"^(sub-)?(PPMI)?(?=\d)|\.0$", "", spelt.strip())


LAYOUTS: Final = {"ppmi": Layout(label=label, unconverted=unconverted)}
