"""ADNI, as ``clinica convert adni-to-bids`` writes it.

The tree (Clinica's documentation, "adni-to-bids")::

    dataset_description.json, participants.tsv              participant_id, alternative_id_1 (PTID), sex, diagnosis_sc, ..
    conversion_info/                                        which image of the archive was chosen
    sub-ADNI011S0002/                                       PTID 011_S_0002
        sub-ADNI011S0002_sessions.tsv                       age, diagnosis, .. per visit
        ses-M000/                                           months since baseline; ses-M00 before Clinica 0.7
            sub-ADNI011S0002_ses-M000_scans.tsv
            anat/sub-ADNI011S0002_ses-M000_T1w.nii.gz
            func/sub-ADNI011S0002_ses-M000_task-rest_bold.nii.gz

It is BIDS and listed as such. What the Image and Data Archive itself gives (``ADNI/011_S_0002/MPRAGE/2005-../I123/``)
is refused with a word on what to do.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from bhx_prep.ingest.layouts import Layout, first_folder

_PTID = re.compile(r"(?P<site>\d{3})_S_(?P<number>\d{4,5})")


def unconverted(root: Path) -> str | None:
    """Why a root is none, where it holds folders of the archive itself."""
    found = first_folder(root, _PTID) or first_folder(root / "ADNI", _PTID)
    if found is None:
        return None
    return f"{found} is a folder of the archive, not BIDS: convert it with `clinica convert adni-to-bids`"


def label(spelt: str) -> str:
    """``ADNI011S0002`` of ``011_S_0002``."""
    spelt = spelt.strip().removeprefix("sub-")
    ptid = _PTID.fullmatch(spelt) or _PTID.fullmatch(spelt.replace("S", "_S_", 1))
    return f"ADNI{ptid['site']}S{ptid['number']}" if ptid else spelt


LAYOUTS: Final = {"adni": Layout(label=label, unconverted=unconverted)}
