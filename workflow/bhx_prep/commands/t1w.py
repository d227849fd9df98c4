"""``bhx t1w``: bring a T1 in MNI space to the grid of exported weights, masked and normalised as their T1s were."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from bhx_model.atomic_write import atomic_write
from bhx_model.data.t1w_space import FILE, T1wSpace
from bhx_model.errors import ConfigError, DataError
from bhx_prep.features.t1w import read_pair
from bhx_prep.io.notes import short

logger = logging.getLogger(__name__)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("image", type=Path, metavar="IN", help="preprocessed T1w in MNI space, NIfTI")
    parser.add_argument(
        "--mask", type=Path, help="its brain mask (default: the image is skull-stripped, with background 0)"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=Path("results/templates"),
        help="an export, or a study's templates: t1w.npz or the folder with it (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, help="array for `embed`: .npy, (X, Y, Z) float32")


def command(args: argparse.Namespace) -> int:
    """Run ``bhx t1w``."""
    if args.out.suffix != ".npy":
        raise ConfigError(f"{args.out}: the array is written as .npy, name the file so")
    if not args.weights.exists():
        raise ConfigError(
            f"there is no {args.weights}: name an export, or the templates of a study, by --weights"
        )
    try:
        space = T1wSpace.load(args.weights if args.weights.is_file() else args.weights / FILE)
    except OSError as error:
        msg = f"{args.weights} has no {FILE}, it does not describe its T1s: export the weights again, or name another"
        raise DataError(msg) from error
    data, affine, mask = read_pair(args.image, args.mask)
    volume = space.conform(data, affine, mask, short(args.image.name))
    with atomic_write(args.out) as part:
        np.save(part, volume)
    logger.info("%s: %s voxels in %s", args.out, " x ".join(map(str, volume.shape)), space.template)
    return 0
