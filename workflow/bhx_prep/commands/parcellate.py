"""``bhx parcellate``: the parcel series of one BOLD file, without a study."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bhx_model.atomic_write import atomic_write
from bhx_model.contract import canonical_json
from bhx_model.errors import ConfigError, DataError
from bhx_prep.atlas.atlas import Atlas, load_atlas
from bhx_prep.atlas.label_files import (
    check_order,
    names_on_surfaces,
    read_surface_labels,
    space_of,
)
from bhx_prep.atlas.label_lists import read_label_list
from bhx_prep.atlas.own_labels import read_own_volume
from bhx_prep.features.parcel_means import Parcellated
from bhx_prep.features.parcellate import parcellate_file
from bhx_prep.ingest import metadata, repetition_time
from bhx_prep.io import bids_names, overwriting
from bhx_prep.io.images import load_image
from bhx_prep.io.meshes import MESHES
from bhx_prep.io.reading import reading

logger = logging.getLogger(__name__)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bhx parcellate``."""
    add = parser.add_argument
    add("--bold", type=Path, required=True, help="NIfTI series, CIFTI dtseries, or left GIfTI/MGH file")
    add("--bold-right", type=Path, help="right hemisphere of a surface pair")
    add(
        "--atlas",
        type=Path,
        nargs="+",
        required=True,
        help="for volumes a label image in their space (any grid); for CIFTI and surfaces a .dlabel.nii, or two"
        " .label.gii or .annot files, left first; for all of them a folder such as results/templates",
    )
    add("--names", type=Path, help="names of the parcels, one per line, in ascending order of labels")
    add("--mask", type=Path, help="brain mask on the grid of the BOLD")
    add("--min-coverage", type=float, default=0.5, help="parcels with less coverage become NaN (%(default)s)")
    add("--tr-s", type=float, help="repetition time (s), if neither header nor sidecar states it")
    add("--out", type=Path, required=True, help="Parquet table: a row per frame, a column per parcel")


def command(args: argparse.Namespace) -> int:
    """Run ``bhx parcellate``."""
    overwriting.check_table(args.out)
    if not 0 <= args.min_coverage <= 1:
        raise ConfigError(f"--min-coverage {args.min_coverage:g}: a share from 0 to 1 is expected")
    atlas = _read_atlas(args.atlas, args.names, args.bold)
    try:
        metadata.check_file(args.bold)
        tr_s = _repetition_time(args.bold, args.tr_s)
    except DataError as error:  # these sentences are made for rows that name the file
        raise DataError(f"{args.bold}: {error}") from error
    found = parcellate_file(
        args.bold, atlas, path_right=args.bold_right, mask=args.mask, min_coverage=args.min_coverage
    )
    write_series(args.out, atlas, found, tr_s)
    covered = int(np.isfinite(found.series).all(axis=1).sum())
    n_frames = found.series.shape[1]
    logger.info(
        "%s: %d frames, TR %g s, %d of %d parcels covered", args.out, n_frames, tr_s, covered, atlas.n_rois
    )
    return 0


def _read_atlas(paths: list[Path], names: Path | None, bold: Path) -> Atlas:
    if len(paths) == 1 and paths[0].is_dir():
        if names:
            raise ConfigError(f"the atlas in {paths[0]} has names of its own: omit --names")
        return load_atlas(paths[0])
    is_volume = bold.name.endswith((".nii", ".nii.gz")) and not bold.name.endswith(".dtseries.nii")
    if is_volume != (len(paths) == 1 and not paths[0].name.endswith(".dlabel.nii")):
        what = (
            "a volume, which needs one label image"
            if is_volume
            else "no volume, and needs labels of surfaces"
        )
        msg = f"{bold.name} is {what}: --atlas does not fit (see bhx parcellate --help)"
        raise ConfigError(msg)
    listed = read_label_list(names) if names else None
    named = listed.names if listed else None
    if named:
        check_order(paths[0], named)
    if is_volume:
        space = space_of(paths[0]) or bids_names.parse(bold.name).get("space", "an unnamed space")
        if listed and listed.numbers:
            volume = read_own_volume(paths[0], load_image(paths[0]), listed)
            return Atlas(paths[0].name.split(".")[0], listed.names, space, labels_volume=volume)
        return read_label_image(paths[0], named, space)
    named = named or names_on_surfaces(paths)
    left, right = read_surface_labels(paths, named)
    label = paths[0].name.split(".")[0]
    return Atlas(label, named, "", labels_surface={MESHES[len(left)]: (left, right)})


def read_label_image(path: Path, names: Sequence[str] | None, space: str) -> Atlas:
    """Atlas from a label image: its labels by rising number, named as given or by their numbers.

    Raises
    ------
    DataError, ConfigError
        If it is no label image, or there are more or fewer names than labels.
    """
    image = load_image(path)
    with reading(path):
        values, affine = np.asarray(image.dataobj), np.asarray(image.affine)
    labels = np.unique(values)
    labels = labels[labels != 0]
    if (
        values.ndim != 3
        or not labels.size
        or labels.min() < 0
        or not np.array_equal(labels, np.round(labels))
    ):
        msg = f"{path} is no label image: one volume of whole numbers from 0 is expected"
        raise ConfigError(msg)
    named = tuple(names or (f"label-{int(label)}" for label in labels))
    if len(named) != len(labels):
        msg = f"there are {len(named)} names, and {len(labels)} labels in {path}: use the names of this atlas"
        raise ConfigError(msg)
    numbered = np.where(values > 0, np.searchsorted(labels, values) + 1, 0).astype(np.int16)
    stem = path.name.split(".")[0]
    return Atlas(stem, named, space, labels_volume=(numbered, affine))


def write_series(path: Path, atlas: Atlas, found: Parcellated, tr_s: float) -> None:
    """Write series as a table (T rows, R float32 columns), with TR (s), atlas and coverage in its metadata ``bhx``."""
    table = pa.table({name: pa.array(row) for name, row in zip(atlas.names, found.series, strict=True)})
    content = {
        "atlas": atlas.label,
        "roi_sha256": atlas.roi_sha256,
        "tr_s": tr_s,
        "coverage": [round(float(share), 6) for share in found.coverage],
    }
    with atomic_write(path) as part:
        pq.write_table(
            table.replace_schema_metadata({"bhx": canonical_json(content)}), part, compression="zstd"
        )


def _repetition_time(bold: Path, given: float | None) -> float:
    fields, _ = metadata.Sidecars(bold.absolute().parent).fields_of(bold)
    measured = None
    if bold.name.endswith(".dtseries.nii"):
        _, measured = metadata.read_cifti_series(bold)
    elif bold.name.endswith((".nii", ".nii.gz")):
        header = metadata.read_header(bold)
        metadata.voxel_sizes(fields, header)  # refuses those of no head
        measured = metadata.header_repetition_time(header)
    made = "space" in bids_names.parse(bold.name)
    tr_s, decided = repetition_time.choose(fields, measured, tr_s=given, derivative=made)
    if decided is not None:
        logger.warning("%s: %s", bold.name, decided)
    return tr_s
