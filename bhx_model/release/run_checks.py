"""What the numbers of a run have to be: there or absent by ROI, of use, and in the units of the training data."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bhx_model.config import FunctionConfig
from bhx_model.data import augment
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import DataError
from bhx_model.release.series_input import MIN_STEPS_PER_SD

#: Largest deviation from its mean that a series may have, and its inverse: squares of others leave single precision.
LARGEST_DEVIATION: Final = 1e15


def check_deviation(largest: float, what: str) -> None:
    """Refuse series whose largest deviation from a mean has squares beyond single precision.

    Raises
    ------
    DataError
        If it has.
    """
    if largest and not 1 / LARGEST_DEVIATION < largest < LARGEST_DEVIATION:
        msg = (
            f"{what} varies by {largest:.1e}, beyond what single precision squares: divide it by that number"
        )
        raise DataError(msg)


def check_run(series_RT: NDArray[np.floating], rois: RoiMetadata, config: FunctionConfig) -> None:
    """Refuse a run whose numbers are no parcel means that the weights can read.

    Parameters
    ----------
    series_RT : (R, T)
        Rows in the order of `rois`, NaN where an ROI has no coverage.
    rois : RoiMetadata
        Of the weights.
    config : FunctionConfig

    Raises
    ------
    DataError
        With what is wrong and how to fix it.
    """
    augment.check_values(series_RT)
    covered = ~np.isnan(series_RT).any(axis=1)
    series_RT, median, iqr = series_RT[covered], rois.median[covered], rois.iqr[covered]
    deviation_R = series_RT.std(axis=1)
    if np.median(deviation_R) < MIN_STEPS_PER_SD and (series_RT == np.rint(series_RT)).all():
        msg = (
            f"the series are whole numbers with a standard deviation of {np.median(deviation_R):.2g}, too coarse: "
            "give parcel means that are not rounded"
        )
        raise DataError(msg)
    if config.scaling == "run":
        # gain and offset of a run make no difference, only what was done to its ROIs one by one does
        if _all_equal(deviation_R) and not _all_equal(iqr):
            msg = (
                "every ROI of the series has the same spread, it was standardised by itself: give parcel means, "
                "the differences between ROIs carry information"
            )
            raise DataError(msg)
        return
    distance = np.median(np.abs(np.median(series_RT, axis=1) - median) / iqr)
    spread = np.median(deviation_R / iqr)
    if distance > 10 or not 0.01 < spread < 100:
        msg = (
            f"the series lie {distance:.3g} scales from the centre of the training data and vary by {spread:.3g} "
            "scales: give parcel means in the same units and with the same denoising (see the model card)"
        )
        raise DataError(msg)


def _all_equal(spread_R: NDArray[np.floating]) -> bool:
    return len(spread_R) > 1 and bool(np.ptp(spread_R) < 1e-3 * np.mean(spread_R))
