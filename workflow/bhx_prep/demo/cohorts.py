"""The demo cohorts. One real scan, four cohorts of people who do not exist and say so.

What they are made of, and the sizes of what is planted: ``docs/explanation/data.md``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

#: Raise when what is written changes, so that older demo data are made again.
VERSION = 4
COHORTS = ("rawbids", "lemon", "derivatives", "pretraining", "patients")


def make_cohorts(
    out: Path, seed: int = 0, cohorts: Sequence[str] = COHORTS, *, force: bool = False
) -> list[str]:
    """Make the demo cohorts that are not finished yet.

    Parameters
    ----------
    out : Path
        Folder that gets one folder per cohort.
    seed : int
        Decides everything random; the same seed gives the same bytes.
    cohorts : sequence of str
        Which ones.
    force : bool
        Make them again even if finished.

    Returns
    -------
    list of str
        The cohorts that were made now.

    Raises
    ------
    ValueError
        If a folder of that name exists and is not ours, or a data package is missing.
    """
    from bhx_prep.demo import folder

    made = []
    for name in cohorts:
        started = time.monotonic()
        made_by = {"cohort": name, "version": VERSION, "seed": seed}
        fill = partial(_filler(name), seed=seed)
        if folder.make(out / name, made_by, fill, force=force):
            made.append(name)
            print(f"synth: {out / name} made in {time.monotonic() - started:.0f} s", file=sys.stderr)
        else:
            print(f"synth: {out / name} is there", file=sys.stderr)
    return made


def _filler(name: str) -> Callable[..., None]:
    # imported here: `bhx --help` shall not load imaging packages
    from bhx_prep.demo import derivatives, lemon, rawbids, timeseries

    return {
        "rawbids": rawbids.fill,
        "lemon": lemon.fill,
        "derivatives": derivatives.fill,
        "pretraining": timeseries.fill_pretraining,
        "patients": timeseries.fill_patients,
    }[name]
