"""The people of ABIDE-I with CC200 series beside the checkout: shards, labels, divisions, and who was trained on."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from bhx_model.atomic_write import write_json
from bhx_model.data import shards
from bhx_model.data.shards import Sample
from bhx_model.errors import DataError
from bhx_model.evaluation.labels import Labels
from bhx_model.file_hash import file_sha256

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared/data"
COHORT = "abide"
#: Each division is of so many folds; of those that are not tested, so many, of which one chooses the penalty.
FOLDS, REST_FOLDS = 5, 5


@dataclass(frozen=True)
class People:
    """Everybody whose series can be used, each once, in the order of the shards."""

    index: Path
    runs: tuple[Sample, ...]
    sha256: tuple[str, ...]
    """Of each series, by which a duplicate is known."""
    dx: np.ndarray
    """(n,) int64: 1 autism, 0 control."""
    site: np.ndarray
    """(n,) str."""
    mean_fd: np.ndarray
    """(n,) mm, NaN where it is not known."""
    left_out: Mapping[str, str]
    """Subject -> why."""

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def subjects(self) -> list[str]:
        """``cohort/label`` of everybody."""
        return [run.subject for run in self.runs]


def run(folder: Path, *words: object) -> None:
    """Run a Python module in `folder`; its words only if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/workflow"},
    )
    if done.returncode:
        msg = f"{words[0]} failed in {folder}: {(done.stdout + done.stderr)[-2000:]}"
        raise DataError(msg)


def lay_out(folder: Path) -> Path:
    """Lay the series out in `folder`, take them to shards, and return their index; what is there is kept.

    Where the data are not, a folder that was laid out elsewhere is taken as it is: a machine with a GPU may have no more.
    """
    index = folder / "results" / COHORT / "shards/index.json"
    if not (DATA / "abide_cc200").exists() and index.exists():
        return index
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / COHORT / "names.txt").exists():
        script = DATA / "real_series.py"
        subprocess.run(
            [sys.executable, script, "abide_cc200", folder / COHORT], check=True, stdout=subprocess.DEVNULL
        )
    shutil.copyfile(Path(__file__).with_name("abide.yaml"), folder / "config.yaml")
    run(
        folder, "snakemake", "--snakefile", ROOT / "workflow/Snakefile", "--cores", os.environ.get("CORES", 2),
        "--quiet", "all", "--", "ingest", "shards",
    )  # fmt: skip
    return index


def read_people(folder: Path) -> People:
    """Everybody with usable series and a diagnosis; of identical series only the first."""
    index = shards.open_index(lay_out(folder))
    with (folder / COHORT / "participants.tsv").open(encoding="utf-8") as file:
        rows = {row["participant_id"][4:]: row for row in csv.DictReader(file, delimiter="\t")}
    first: dict[str, str] = {}
    runs, left_out = [], dict.fromkeys(rows, "not in the shards")
    for sample in index.samples["bold"]:
        label = sample.subject.split("/")[1]
        digest = series_sha256(sample, len(index.metadata["roi_names"]))
        if digest in first:
            left_out[label] = f"the same series as {first[digest]}"
            continue
        first[digest] = label
        del left_out[label]
        runs.append((sample, digest, rows[label]))
    found = [row for *_, row in runs]
    return People(
        Path(index.path),
        tuple(sample for sample, *_ in runs),
        tuple(digest for _, digest, _ in runs),
        np.array([{"autism": 1, "control": 0}[row["dx"]] for row in found]),
        np.array([row["site"] for row in found]),
        np.array([float(row["mean_fd_mm"]) if row["mean_fd_mm"] != "n/a" else np.nan for row in found]),
        left_out,
    )


def series_sha256(sample: Sample, n_rois: int) -> str:
    """Hash of a series' numbers."""
    return hashlib.sha256(shards.read_bold(sample, n_rois).tobytes()).hexdigest()


def divide(people: People, seed: int) -> Labels:
    """Train, validation and test people of a seed: fold ``seed % 5`` of division ``seed // 5`` is tested.

    Five seeds that follow a multiple of 5 thus test everybody once. All parts are alike in sites and diagnoses.
    """
    strata = np.char.add(people.site, people.dx.astype(str))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed // FOLDS)
        rest, test = list(folds.split(strata, strata))[seed % FOLDS]
        parts = StratifiedKFold(REST_FOLDS, shuffle=True, random_state=seed)
        _, val = next(iter(parts.split(strata[rest], strata[rest])))
    split = np.full(len(people), "train", dtype="<U5")
    split[test], split[rest[val]] = "test", "val"
    return Labels("dx", COHORT, "binary", ["control", "autism"], seed, people.subjects, people.dx, split)


def write_shards_of(index: Path, subjects: Collection[str], out: Path) -> Path:
    """Write an index, in the folder `out`, of the BOLD runs of `subjects` alone (``cohort/label``), and return its path.

    The tars are linked; that others' bytes are in them does not matter, as nothing but the lists leads to them.
    """
    out.mkdir(parents=True, exist_ok=True)
    metadata = json.loads(index.read_bytes())
    entries = []
    for entry in metadata["shards"]["bold"]:
        rows = json.loads((index.parent / entry["list"]).read_bytes())
        kept = [i for i, label in enumerate(rows["subject"]) if f"{metadata['cohort']}/{label}" in subjects]
        if not kept:
            continue
        of_kept = {
            name: [column[i] for i in kept] if isinstance(column, list) else column
            for name, column in rows.items()
        }
        write_json(out / entry["list"], of_kept)
        link = out / entry["file"]
        link.unlink(missing_ok=True)
        link.symlink_to((index.parent / entry["file"]).resolve())
        list_sha256 = file_sha256(out / entry["list"])
        entries.append(entry | {"n": len(kept), "list_sha256": list_sha256})
    write_json(out / "index.json", metadata | {"shards": {"bold": entries, "t1w": []}})
    return out / "index.json"


def check_trained_on(people: People, labels: Labels, index: Path, run_json: Mapping[str, Any]) -> None:
    """Refuse weights whose training read anything but `index`, or an index with people or series that are not the train's.

    Raises
    ------
    DataError
        With how many.
    """
    opened = shards.open_index(index)
    if run_json["inputs"]["shards"] != [[COHORT, opened.sha256]]:
        msg = f"the weights of seed {labels.seed} were trained on other shards than {index}: train them again"
        raise DataError(msg)
    n_rois = len(opened.metadata["roi_names"])
    others = np.flatnonzero(labels.split != "train")
    samples = opened.samples["bold"]
    refuse_overlap([people.subjects[i] for i in others], {sample.subject for sample in samples})
    refuse_overlap([people.sha256[i] for i in others], {series_sha256(sample, n_rois) for sample in samples})


def refuse_overlap(held: Sequence[str], seen: Collection[str]) -> None:
    """Refuse if anybody of `held` is among `seen`.

    Raises
    ------
    DataError
        If so.
    """
    both = sorted(set(held) & set(seen))
    if both:
        msg = f"{len(both)} of the people to validate or test on were trained on, e.g. {both[0]}"
        raise DataError(msg)
