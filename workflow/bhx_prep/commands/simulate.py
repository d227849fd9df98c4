"""``bhx simulate``: the files of a large cohort without its images, to plan disk, jobs and queue before the data arrive.

Every image is an empty NIfTI header, every sidecar and table is small; they are links to a few files, so a cohort of
UK Biobank's size takes folders and no space. ``bhx index`` and ``snakemake -n`` treat it as any other; jobs would find
no voxels. The cohort says that it is synthetic wherever a cohort can.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.errors import ConfigError
from bhx_prep.ingest.repetition_time import MAX_TR_S, MIN_TR_S
from bhx_prep.io import bids_names

logger = logging.getLogger(__name__)

_HEADER = "# Written by `bhx simulate`, which adds a cohort with every call.\n"

SPACE = "space-MNI152NLin2009cAsym"

#: A file may have 65,000 names on ext4.
NAMES_PER_FILE = 60_000

#: Images: shape and voxel size (mm).
BOLD_GRID, BOLD_MM = (97, 115, 97), 2.0
T1W_GRID, T1W_MM = (193, 229, 193), 1.0


@dataclass(frozen=True)
class Size:
    """How large a cohort is.

    Attributes
    ----------
    subjects, t1w, bold : int
        Subjects, and images in all. Sessions follow the T1 images, runs are spread evenly over sessions.
    tr_s : float
        Repetition time (s).
    n_frames : int
    """

    subjects: int
    t1w: int
    bold: int
    tr_s: float
    n_frames: int

    def __post_init__(self) -> None:
        if min(self.subjects, self.t1w, self.bold, self.n_frames) < 1 or self.t1w < self.subjects:
            raise ConfigError("subjects, images and frames are at least 1, and every subject has a T1")
        if not MIN_TR_S <= self.tr_s <= MAX_TR_S:
            raise ConfigError(f"a repetition time of {self.tr_s} s: expected {MIN_TR_S} to {MAX_TR_S} s")

    def sessions(self) -> Iterator[tuple[str, str | None, int]]:
        """Label of the subject, session (None for subjects with one only) and runs of every session."""
        number = 0
        for subject in range(self.subjects):
            n = self.t1w // self.subjects + (subject < self.t1w % self.subjects)
            for session in range(1, n + 1):
                runs = self.bold // self.t1w + (number < self.bold % self.t1w)
                yield f"sim{subject:07d}", str(session) if n > 1 else None, runs
                number += 1


@dataclass
class _Links:
    """Names for the same bytes: written once, linked from then on."""

    pool: Path
    _used: dict[str, int] = field(default_factory=dict)

    def place(self, kind: str, content: bytes, path: Path) -> None:
        used = self._used.get(kind, 0)
        source = self.pool / f"{kind}-{used // NAMES_PER_FILE}"
        if not source.exists():
            source.write_bytes(content)
        try:
            os.link(source, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            path.write_bytes(content)
        self._used[kind] = used + 1


def simulate(root: Path, input: str, size: Size) -> int:
    """Write the files of a cohort at ``input: bids`` or ``fmriprep``.

    Parameters
    ----------
    root : Path
        Folder of the cohort; must not exist.
    input : str
    size : Size

    Returns
    -------
    int
        Files.

    Raises
    ------
    ConfigError
        If there is something at `root`.
    """
    if root.exists():
        raise ConfigError(f"{root} exists: remove it, or give another --name or --out")
    about = json.dumps({"RepetitionTime": size.tr_s, "TaskName": "rest", "Synthetic": True}).encode()
    images = {
        "bold": _header((*BOLD_GRID, size.n_frames), BOLD_MM, size.tr_s, np.int16),
        "T1w": _header(T1W_GRID, T1W_MM, None, np.int16),
        "mask": _header(BOLD_GRID, BOLD_MM, None, np.uint8),
        "T1mask": _header(T1W_GRID, T1W_MM, None, np.uint8),
    }
    pool = root / "sourcedata" / "simulated"
    pool.mkdir(parents=True)
    links, n_files, n_subjects = _Links(pool), 0, 0
    for subject, session, runs in size.sessions():
        folder, stem = root / f"sub-{subject}", f"sub-{subject}"
        if session:
            folder, stem = folder / f"ses-{session}", f"{stem}_ses-{session}"
        if session in (None, "1"):
            n_subjects += 1
            if n_subjects % 5000 == 0:
                logger.info("%d of %d subjects", n_subjects, size.subjects)
        for kind, name, content in _session(stem, input, runs, images, about):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            links.place(kind, content, path)
            n_files += 1
    described = {"Name": "Simulated: headers without images", "BIDSVersion": "1.10.0", "Synthetic": True}
    if input == "fmriprep":
        described |= {"DatasetType": "derivative", "GeneratedBy": [{"Name": "bhx simulate"}]}
        with atomic_write(root / ".bidsignore") as part:
            part.write_text("*_timeseries.*\n")
        for suffix in ("T1w", "bold"):  # of all images
            write_json(root / f"desc-preproc_{suffix}.json", {"SkullStripped": False})
    _write_participants(root / "participants.tsv", size.subjects)
    write_json(root / "dataset_description.json", described)
    return n_files


def _write_participants(path: Path, n: int) -> None:
    """Ages (years) and sexes, drawn: endpoints can be planned."""
    rng = np.random.default_rng(0)
    rows = zip(rng.integers(44, 84, n), rng.choice(["F", "M"], n), strict=True)
    with path.open("w", encoding="utf-8") as file:
        file.write("participant_id\tage\tsex\n")
        file.writelines(f"sub-sim{i:07d}\t{age}\t{sex}\n" for i, (age, sex) in enumerate(rows))


def _session(
    stem: str, input: str, runs: int, images: dict[str, bytes], about: bytes
) -> Iterator[tuple[str, str, bytes]]:
    """Kind, place and content of the files of one session."""
    raw = input == "bids"
    standard = "" if raw else f"_{SPACE}"
    yield "T1w", f"anat/{stem}{standard}{'' if raw else '_desc-preproc'}_T1w.nii.gz", images["T1w"]
    if not raw:
        yield "T1mask", f"anat/{stem}{standard}_desc-brain_mask.nii.gz", images["T1mask"]
    for run in range(1, runs + 1):
        one = f"func/{stem}_task-rest" + (f"_run-{run}" if runs > 1 else "")
        name = f"{one}{standard}{'' if raw else '_desc-preproc'}_bold"
        yield "bold", f"{name}.nii.gz", images["bold"]
        yield "about", f"{name}.json", about
        if not raw:
            yield "mask", f"{one}{standard}_desc-brain_mask.nii.gz", images["mask"]
            yield "confounds", f"{one}_desc-confounds_timeseries.tsv", b"global_signal\n"


def _header(shape: tuple[int, ...], mm: float, tr_s: float | None, dtype: type) -> bytes:
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_zooms((mm,) * 3 + ((tr_s,) if tr_s else ()))
    header.set_xyzt_units("mm", "sec")
    return gzip.compress(header.binaryblock + b"\0" * 4, mtime=0)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``bhx simulate``; the numbers are those of UK Biobank in the paper."""
    parser.add_argument("--subjects", type=int, default=43112, metavar="N", help="subjects (%(default)s)")
    parser.add_argument("--t1w", type=int, metavar="N", help="T1 images (default: one for each subject)")
    parser.add_argument("--bold", type=int, metavar="N", help="BOLD runs (default: one for each T1)")
    parser.add_argument(
        "--tr-s", type=float, default=0.735, metavar="S", help="repetition time in seconds (%(default)s)"
    )
    parser.add_argument("--frames", type=int, default=490, metavar="N", help="frames of a run (%(default)s)")
    parser.add_argument("--name", default="ukb", help="name of the cohort (%(default)s)")
    parser.add_argument(
        "--input",
        choices=("bids", "fmriprep"),
        default="fmriprep",
        help="raw BIDS or fMRIPrep derivatives (%(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("simulated"), help="folder of the study (%(default)s)"
    )


def command(args: argparse.Namespace) -> int:
    """Write a cohort, and add it to the configuration next to it."""
    bids_names.check_cohort(args.name)
    t1w = args.t1w or args.subjects
    size = Size(args.subjects, t1w, args.bold or t1w, args.tr_s, args.frames)
    file = args.out / "config.yaml"
    settings = _read_own(file) if file.exists() else {"cohorts": {}}
    if args.name in settings["cohorts"]:
        raise ConfigError(f"{file} has a cohort {args.name} already: give another --name")
    n = simulate(args.out / args.name, args.input, size)
    settings["cohorts"][args.name] = {"input": args.input, "root": args.name, "synthetic": True}
    if args.input == "bids":
        settings["preproc"] = {"backend": "fmriprep-apptainer"}
    with atomic_write(file) as part:
        part.write_text(_to_text(settings), encoding="utf-8")
    counts = (size.subjects, size.t1w, size.bold, n)
    logger.info("%s: %d subjects, %d T1, %d BOLD runs in %d files", args.out / args.name, *counts)
    logger.info("now: cd %s && bhx index && snakemake --snakefile BHX/workflow/Snakefile -n", args.out)
    return 0


def _to_text(settings: dict[str, Any]) -> str:
    return _HEADER + yaml.safe_dump(settings, sort_keys=False)


def _read_own(file: Path) -> dict[str, Any]:
    """Settings that `bhx simulate` wrote before; a file of the user's would lose its comments, and is refused."""
    text = file.read_text(encoding="utf-8")
    settings = yaml.safe_load(text) if text.startswith(_HEADER) else None
    if settings is None or _to_text(settings) != text:
        msg = f"{file} is there, and `bhx simulate` did not write it as it is: give another folder to --out"
        raise ConfigError(msg)
    return settings
