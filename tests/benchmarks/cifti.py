"""Parcellation of dense series (91k grayordinates) in one long-lived worker, compared with Connectome Workbench's command.

    python tests/benchmarks/cifti.py --templates results/templates --frames 490 --files 4

Files hold noise on both cortices and as many subcortical voxels as HCP's have. CPU seconds per file: ours after the
first one of the study (its header is parsed then), wb_command's of the whole process, which has no other way to be
called. "reading" is the least: the file's bytes, read once. Needs Debian's `connectome-workbench`. No part of the tests.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from bhx_prep.atlas.atlas import load_atlas
from bhx_prep.atlas.sources.packages import read_cortex
from bhx_prep.features import parcellate
from bhx_prep.io.meshes import GRAYORDINATES

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "builders"))
from atlas_files import write_label_file

#: Subcortical voxels of HCP's 91,282 grayordinates.
VOXELS = GRAYORDINATES - 29696 - 29716


def write_series(path: Path, frames: int, seed: int) -> None:
    """One dense series."""
    axes = [
        nib.cifti2.BrainModelAxis.from_mask(mask, name=f"Cortex{side}")
        for side, mask in zip(("Left", "Right"), read_cortex(), strict=True)
    ]
    box = np.zeros((32, 32, 32), bool)
    box.reshape(-1)[:VOXELS] = True
    axis = (
        axes[0] + axes[1] + nib.cifti2.BrainModelAxis.from_mask(box, affine=np.eye(4), name="thalamus_left")
    )
    values = 9000 + 60 * np.random.default_rng(seed).standard_normal((frames, len(axis)), np.float32)
    header = nib.cifti2.Cifti2Header.from_axes((nib.cifti2.SeriesAxis(0, 0.735, frames), axis))
    nib.Cifti2Image(values, header).to_filename(path)


def cpu(work: Callable[[], object], who: int) -> float:
    """CPU seconds of this process or of its children."""
    before = resource.getrusage(who)
    work()
    after = resource.getrusage(who)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--templates", type=Path, default=Path("results/templates"))
    parser.add_argument("--frames", type=int, default=490)
    parser.add_argument("--files", type=int, default=4)
    args = parser.parse_args()
    workbench = shutil.which("wb_command")
    if workbench is None:
        sys.exit("wb_command is not installed: apt-get install connectome-workbench")
    atlas = load_atlas(args.templates)
    here, children = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    times: dict[str, list[float]] = {"ours": [], "wb_command": [], "reading": []}
    with tempfile.TemporaryDirectory() as folder:
        labels, out = Path(folder) / "atlas.dlabel.nii", Path(folder) / "out.ptseries.nii"
        write_label_file(labels, atlas.surface("fsLR"), list(atlas.names))
        for number in range(args.files + 1):
            path = Path(folder) / f"{number}.dtseries.nii"
            write_series(path, args.frames, number)
            words = [workbench, "-cifti-parcellate", str(path), str(labels), "COLUMN", str(out)]
            found = {}

            def ours(path: Path = path, found: dict = found) -> None:
                found["series"] = parcellate.parcellate_file(path, atlas).series

            def reading(path: Path = path) -> None:
                path.read_bytes()

            def theirs(words: list[str] = words) -> None:
                subprocess.run(words, check=True, capture_output=True)

            for name, work, who in (
                ("reading", reading, here),
                ("ours", ours, here),
                ("wb_command", theirs, children),
            ):
                times[name].append(cpu(work, who))
            image = nib.load(out)
            order = [list(image.header.get_axis(1).name).index(name) for name in atlas.names]
            off = np.abs(found["series"] / np.asarray(image.dataobj).T[order] - 1).max()
            path.unlink()
    print(
        f"91,282 grayordinates x {args.frames}, float32; largest relative difference from wb_command {off:.1e}"
    )
    for name, listed in times.items():
        first = f"   (the first {listed[0]:.2f} s)" if name == "ours" else ""
        print(f"  {name:10s} {statistics.median(listed[1:]):6.2f} s CPU a file{first}")
    ours_s, wb_s, least = (statistics.median(times[name][1:]) for name in ("ours", "wb_command", "reading"))
    print(f"  {wb_s / ours_s:.1f} x wb_command's speed (goal 4); {ours_s / least:.1f} x the time of reading")


if __name__ == "__main__":
    main()
