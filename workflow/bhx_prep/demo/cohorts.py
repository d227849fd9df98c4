"""The demo cohorts: one real scan, and four cohorts of synthetic subjects that are labelled as such.

What they are made of, and the sizes of what is planted: ``docs/explanation/data.md``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bhx_prep.process_pool import process_pool

logger = logging.getLogger(__name__)

#: Raise when what is written changes, so that older demo data are made again.
VERSION = 5
COHORTS = ("rawbids", "lemon", "derivatives", "pretraining", "patients")


def make_cohorts(
    out: Path, seed: int = 0, cohorts: Sequence[str] = COHORTS, *, force: bool = False
) -> list[str]:
    """Make the demo cohorts that are not complete yet.

    Parameters
    ----------
    out : Path
        Folder that gets one folder per cohort.
    seed : int
        Seed of all random numbers; the same seed gives the same bytes.
    cohorts : sequence of str
        Their names.
    force : bool
        Make them again even if they are complete.

    Returns
    -------
    list of str
        The cohorts that were made now.

    Raises
    ------
    ConfigError
        If a folder of that name exists and was not made by `bhx synth`.
    SiteError
        If a data package is missing, or memory is short.
    """
    from bhx_prep.demo import folder

    made = []
    with process_pool() as pool:
        for name in cohorts:
            started = time.monotonic()
            made_by = {"cohort": name, "version": VERSION, "seed": seed}
            fill = partial(_filler(name), seed=seed, each=pool.map)
            if folder.make(out / name, made_by, fill, force=force):
                made.append(name)
                logger.info("%s: made in %.0f s", out / name, time.monotonic() - started)
            else:
                logger.info("%s: complete already", out / name)
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
