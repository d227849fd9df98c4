"""Cases of one scan: its image, its header, its sidecar."""

from __future__ import annotations

from pathlib import Path

from input_cases import Seen, case, seen_scan


@case("Scans", "an image that is a pointer of git-annex (not fetched)", "refused", "datalad get")
def annex_pointer(folder: Path) -> Seen:
    func = folder / "data" / "sub-01" / "func"
    func.mkdir(parents=True)
    (func / "sub-01_task-rest_timeseries.npy").symlink_to("../../.git/annex/objects/x/y/MD5E-s1--z.npy")
    return seen_scan(folder, input="timeseries", tr_s=2)
