"""Columns of the feature tables of a batch: series, and a QC row for every scan."""

from __future__ import annotations

import pyarrow as pa

from bhx_prep.features import gates

#: Strategy in QC rows of tables of other software: BHX does not denoise them.
AS_GIVEN = "as given"

SERIES_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("subject", pa.string()),
        ("session", pa.string()),
        ("task", pa.string()),
        ("run", pa.string()),
        ("anat", pa.string()),
        ("tr_s", pa.float64()),
        ("n_frames", pa.int64()),
        ("segments", pa.list_(pa.list_(pa.int64()))),
        ("synthetic", pa.bool_()),
        ("series", pa.list_(pa.float32())),
        ("coverage", pa.list_(pa.float32())),
        ("fingerprint", pa.list_(pa.float32())),
    ]
)

QC_SCHEMA = pa.schema(
    [
        ("cohort", pa.string()),
        ("subject", pa.string()),
        ("key", pa.string()),
        ("modality", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("tr_s", pa.float64()),
        ("n_frames", pa.int64()),
        ("n_kept", pa.int64()),
        ("mean_fd_mm", pa.float64()),
        ("max_fd_mm", pa.float64()),
        ("fd_mm", pa.list_(pa.float32())),
        ("kept", pa.list_(pa.bool_())),
        ("mean_coverage", pa.float64()),
        ("n_rois_covered", pa.int64()),
        ("tsnr", pa.float64()),
        ("template_dice", pa.float64()),
        ("template_correlation", pa.float64()),
        *((name, pa.float64()) for names in gates.COLUMNS.values() for name in names),
        ("strategy", pa.string()),
        ("synthetic", pa.bool_()),
        ("seconds", pa.float64()),
        ("sha256", pa.string()),
        ("decision", pa.string()),
        ("overruled", pa.string()),
    ]
)
