"""ADHD-200."""

from __future__ import annotations

from typing import Final

from bhx_prep.ingest.fcp_indi import Offer

_ATHENA = (
    "the Athena pipeline's tables need a free account: load ADHD200_CC{}_TCs_filtfix.tar.gz from "
    "nitrc.org/frs/?group_id=383, unpack it, and use `input: timeseries, layout: adhd200`"
)

#: What ``bhx fetch`` knows of it.
OFFERS: Final = {
    "adhd200": Offer(
        cite="ADHD-200 Consortium 2012, doi:10.3389/fnsys.2012.00062; for Athena's tables also Bellec et al. 2017, "
        "doi:10.1016/j.neuroimage.2016.06.034",
        raw="data/Projects/ADHD200/RawDataBIDS",
        elsewhere={"rois_cc200": _ATHENA.format(200), "rois_cc400": _ATHENA.format(400)},
    ),
}
