"""XCP-D's numbers, from confounds and what the features kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bhx_prep.ingest import index
from bhx_prep.review import draw, numbers


def test_they_are_what_their_names_say():
    fd = [None, 1.0, 0.1, 0.2, 0.9, 0.3]
    kept = [False, False, True, True, False, True]
    table = pd.DataFrame(
        {
            "dvars": [np.nan, 50.0, 10.0, 12.0, 40.0, 11.0],
            "rmsd": [np.nan, 5.0, 0.05, 0.1, 0.7, 0.3],
            "non_steady_state_outlier00": [1, 0, 0, 0, 0, 0],
            "non_steady_state_outlier01": [0, 1, 0, 0, 0, 0],
        }
    )
    found = numbers.of_run(table, fd, kept)
    assert found.keys() <= numbers.XCPD.keys()
    assert found["mean_fd"] == pytest.approx((0.1 + 0.2 + 0.9 + 0.3) / 4)
    assert found["mean_fd_post_censoring"] == pytest.approx(0.2)
    assert found["mean_relative_rms"] == pytest.approx(0.15)
    assert found["max_relative_rms"] == pytest.approx(0.3)
    assert found["mean_dvars_initial"] == pytest.approx((10 + 12 + 40 + 11) / 4)
    counts = [found[f"num_{name}_volumes"] for name in ("dummy", "censored", "retained")]
    assert counts == [2, 1, 3]
    expected = np.corrcoef([0.1, 0.2, 0.9, 0.3], [10, 12, 40, 11])[0, 1]
    assert found["fd_dvars_correlation_initial"] == pytest.approx(expected)


def test_what_is_not_known_is_none():
    assert numbers.of_run(None, None, None) == {}
    bare = numbers.of_run(None, None, [True, False])
    assert {name: value for name, value in bare.items() if value is not None} == {
        "num_retained_volumes": 1, "num_censored_volumes": 1
    }  # fmt: skip
    other = numbers.of_run(pd.DataFrame({"dvars": [1.0, 2.0]}), [0.1, 0.2, 0.3], None)
    assert other["mean_dvars_initial"] is None  # a table of another run
    assert other["mean_fd"] == pytest.approx(0.2)


def test_a_scan_that_preprocessing_excluded_keeps_its_numbers(tmp_path):
    written = tmp_path / "preproc/sub-01/ses-a/func/sub-01_ses-a_task-rest_desc-quality_bold.json"
    written.parent.mkdir(parents=True)
    written.write_text('{"coreg_dice": 0.6465, "failed": ["coreg_dice"]}')
    raw = tmp_path / "sub-study/sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz"
    named = {"key": "ward_sub-01_ses-a_task-rest", "modality": "bold", "kind": "raw", "path": str(raw)}
    batch = draw.Batch([dict.fromkeys(index.SCHEMA.names) | named], {}, {}, tmp_path, tmp_path / "preproc")
    assert list(batch.pictures()) == []
    assert batch.numbers == [{"key": named["key"], "modality": "bold", "coreg_dice": 0.6465}]
