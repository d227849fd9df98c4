"""Describe the T1s in a study's features, for the exports of its models: grid, recipe, coarse template.

Examples
--------
::

    python -m bhx_prep.features.t1w_space --t1w t1w.json --head head_T1w.nii.gz --mask head_mask.nii.gz \
        --out results/templates/t1w.npz
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bhx_model.command_line import json_file, run_command
from bhx_model.data.t1w_space import space_of
from bhx_prep.atlas.atlas import DEFAULT_SPACE
from bhx_prep.config.features import FeaturesSection
from bhx_prep.config.section import read_section
from bhx_prep.features.t1w import conform, model_grid


def describe(settings: FeaturesSection, head: Path, mask: Path, out: Path) -> None:
    """Write the description.

    Parameters
    ----------
    settings : FeaturesSection
    head, mask : Path
        Template and its brain mask.
    out : Path
    """
    grid = model_grid(settings.t1w_resolution_mm, settings.t1w_shape)
    space = space_of(
        grid,
        DEFAULT_SPACE,
        conform(head, grid, mask),
        min_dice=settings.t1w_min_dice,
        min_correlation=settings.t1w_min_correlation,
    )
    space.save(out)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the rule ``describe_t1w``."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_prep.features.t1w_space",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--t1w",
        required=True,
        type=json_file,
        metavar="FILE",
        help="keys `t1w_..` of section `features`, JSON",
    )
    parser.add_argument("--head", required=True, type=Path, help="template of the head")
    parser.add_argument("--mask", required=True, type=Path, help="its brain mask")
    parser.add_argument("--out", required=True, type=Path)
    a = parser.parse_args(argv)
    return run_command(lambda: describe(read_section(FeaturesSection, a.t1w), a.head, a.mask, a.out))


if __name__ == "__main__":
    sys.exit(main())
