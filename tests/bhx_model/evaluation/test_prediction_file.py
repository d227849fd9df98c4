"""What is written of predictions is what is read; what is none is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endpoint_labels import prediction_row

from bhx_model.errors import DataError
from bhx_model.evaluation import prediction_file


def test_what_is_written_is_read(tmp_path):
    rows = [
        {**prediction_row("01", split="train"), "score": 0.25, "probabilities": [0.75, 0.25]},
        {**prediction_row("2", "d", truth=0), "score": 0.1, "probabilities": [0.9, 0.1]},
    ]
    prediction_file.write(tmp_path / "predictions.parquet", rows)
    found = prediction_file.read(tmp_path / "predictions.parquet")
    assert list(found.people) == ["c/01", "d/2"]
    assert list(found.truth) == [1, 0]
    assert found.scores == pytest.approx(np.array([[0.75, 0.25], [0.9, 0.1]]))
    assert list(found.of("test")) == [False, True]


def test_values_keep_all_their_digits(tmp_path):
    prediction_file.write(
        tmp_path / "p.parquet", [{**prediction_row("1"), "score": 1 / 3, "prediction": 1 / 3}]
    )
    assert prediction_file.read(tmp_path / "p.parquet").scores.tolist() == [[1 / 3]]


def test_an_invalid_file_is_refused(tmp_path):
    (tmp_path / "text").write_text("subject,truth")
    with pytest.raises(DataError, match="is no Parquet file"):
        prediction_file.read(tmp_path / "text")
    pq.write_table(pa.table({"subject": ["1"]}), tmp_path / "other")
    with pytest.raises(DataError, match="has no cohort, split"):
        prediction_file.read(tmp_path / "other")


def test_people_are_the_same_in_any_order():
    one, same, other = (
        prediction_file.people_sha256(p) for p in (["c/1", "c/2"], ["c/2", "c/1"], ["c/1", "d/2"])
    )
    assert one == same != other
