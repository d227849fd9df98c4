"""The format of shards that the pipeline writes and the model reads: names, shapes, units. Needs neither torch nor nibabel.

A cohort's shards lie in one folder::

    bold-00003.tar   bold-00003.json    BOLD series of batch 3 and the list of what is inside
    t1w-00003.tar    t1w-00003.json     T1 volumes of the same subjects
    index.json                          hashes of all of the above; training depends on this file alone

The tars are plain WebDataset tars. Every sample is canonical JSON and an array, never pickled, compressed in Blosc
frames: `bhx_model.data.timeseries.decode` and `bhx_model.data.volumes.decode` take the two kinds of members.
``R`` ROIs, ``T`` frames; times in seconds, lengths in millimetres.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bhx_model.errors import DataError

CONTRACT_VERSION: Final = 4

MODALITIES: Final = ("bold", "t1w")

#: Member suffix -> dtype and axes of what is decoded from it.
ARRAYS: Final = {
    # denoised parcel means, (R ROIs, T frames); rows of NaN are ROIs without coverage
    "bold": ("bold.npy.blosc", "float32", ("roi", "frame")),
    # intensity-normalised volume on the model's grid, (X, Y, Z), RAS+, in steps of 1/128 sd
    "t1w": ("t1w.blosc", "int16", ("x", "y", "z")),
}
META_MEMBER: Final = "meta.json"

#: Fields of a sample's ``meta.json``. ``anat`` is the key of the T1 that goes with a BOLD run, or null. ``segments`` are the
#: kept frames of a run from which some were cut (`bhx_model.data.segments`); null for one in one piece.
BOLD_META: Final = (
    "cohort", "subject", "session", "task", "run", "tr_s", "n_frames", "segments", "atlas", "roi_sha256", "anat",
    "synthetic",
)  # fmt: skip
T1W_META: Final = ("cohort", "subject", "session", "zooms_mm", "affine", "synthetic")

#: Fields of a shard's list (``bold-00003.json``), one value per sample, in the order of the tar.
#: Offsets and sizes are those of the array's member and of its JSON, in bytes from the tar's start. ``content_sha256`` is
#: the hash of a series as float32 (`bhx_model.data.timeseries.content_sha256`), or of a volume as it is stored: equal for
#: one scan under two ids, in one cohort or in two.
LIST_COLUMNS: Final = {
    "bold": (
        "key", "anat", "subject", "tr_s", "n_frames", "segments", "content_sha256", "offset", "size", "meta_offset",
        "meta_size",
    ),
    "t1w": ("key", "subject", "content_sha256", "offset", "size", "meta_offset", "meta_size"),
}  # fmt: skip

#: Repetition times that a stored series may have, in seconds: no scanner has others.
TR_RANGE_S: Final = (0.1, 20.0)

_KEY = re.compile(r"[a-z][a-z0-9]*_sub-[A-Za-z0-9]+(_[a-z0-9]+-[A-Za-z0-9+]+)*")


def check_key(key: str) -> str:
    """Return `key` if it may name a sample: ``{cohort}_sub-{id}[_{entity}-{value}]...``, and no dots.

    Raises
    ------
    DataError
        If it may not.
    """
    if not _KEY.fullmatch(key):
        msg = f"{key!r} cannot name a sample: expected <cohort>_sub-<id>[_ses-..][_task-..][_run-..] without dots"
        raise DataError(msg)
    return key


def check_timing(tr_s: Any, n_frames: Any) -> None:
    """Refuse a repetition time (s) outside of `TR_RANGE_S`, and a number of frames that is none.

    Raises
    ------
    DataError
        If either is.
    """
    low, high = TR_RANGE_S
    if isinstance(tr_s, bool) or not isinstance(tr_s, int | float) or not low <= tr_s <= high:
        raise DataError(f"TR is {str(tr_s)[:40]} s: give a number of seconds between {low:g} and {high:g}")
    if isinstance(n_frames, bool) or not isinstance(n_frames, int) or n_frames < 1:
        raise DataError(f"it has {str(n_frames)[:40]} frames: give a whole number, 1 or more")


def canonical_json(value: Any) -> bytes:
    """Encode `value` so that equal values give equal bytes; NaN and infinity are refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def roi_sha256(atlas: str, names: Sequence[str]) -> str:
    """Hash of an atlas name and its ROI names in order: two arrays fit only if theirs are equal."""
    return hashlib.sha256(canonical_json([atlas, list(names)])).hexdigest()


def check_index(index: Mapping[str, Any]) -> None:
    """Refuse an ``index.json`` that this version cannot read.

    The index holds ``contract``, ``cohort``, ``atlas``, ``roi_names`` (R), ``roi_sha256``, ``t1w_shape`` (3),
    ``t1w_zooms_mm`` (3), ``synthetic`` and ``shards``: per modality a list of
    ``{"file", "sha256", "bytes", "n", "list", "list_sha256"}``, sorted by file name.

    Raises
    ------
    DataError
        With the reason and the way out.
    """
    version = index.get("contract")
    if version != CONTRACT_VERSION:
        msg = f"shards of contract version {version}, this code reads {CONTRACT_VERSION}: rebuild the shards"
        raise DataError(msg)
    forms = {"cohort": str, "atlas": str, "roi_names": list, "synthetic": bool, "t1w_shape": list | None}
    for name, form in forms.items():
        if name not in index or not isinstance(index[name], form):
            found = repr(index[name]) if name in index else "missing"
            msg = f"{name} of an index of shards is {found}: the index was edited, rebuild it"
            raise DataError(msg)
    if roi_sha256(index["atlas"], index["roi_names"]) != index["roi_sha256"]:
        msg = f"cohort {index['cohort']}: ROI names and their hash disagree, the index was edited: rebuild it"
        raise DataError(msg)


#: Lists of people (``people`` of ``pretrain.json``, of ``run.json`` and of the card of exported weights) hold hashes by
#: kind. These kinds mean nothing outside of a study, and are not passed on: paths, and ids of families as such.
PEOPLE_OF_STUDY: Final = frozenset({"folder", "study_family"})

_PERSON: Final = re.compile("[0-9a-f]{32}")


def people_of(listed: Any) -> dict[str, list[str]] | None:
    """Lists of people by kind; None where nobody is listed, or anybody otherwise than as a hash, which matches none."""
    if not isinstance(listed, dict):
        return None
    known = {kind: values for kind, values in listed.items() if values}
    for values in known.values():
        if not isinstance(values, list):
            return None
        if not all(isinstance(value, str) and _PERSON.fullmatch(value) for value in values):
            return None
    return known or None


#: Arrays of ``rois.npz``, the per-ROI metadata that become buffers of the model. Rows in the order of the series.
ROI_ARRAYS: Final = {
    "atlas": "() str",
    "names": "(R,) str",
    "hemisphere": "(R,) int8: 0 left, 1 right, -1 not known or of neither",
    # M is 0 for an atlas without harmonics
    "harmonics": "(R, M) float32: parcel means of mass-orthonormal Laplace-Beltrami modes, constant mode first",
    "eigenvalues": "(2, M) float64, mm^-2: left, right",
    "gradients": "(R, G) float32: connectivity gradients of the pretraining split",
    "median": "(R,) float32: centre of the normaliser",
    "iqr": "(R,) float32: its scale, > 0",
}
