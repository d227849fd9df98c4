"""The split of a pretraining, as the training reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bhx_model.data.split import read_split
from bhx_model.errors import DataError


def test_subjects_may_play_no_part(tmp_path: Path):
    file = tmp_path / "pretrain.json"
    file.write_text(json.dumps({"train": ["a/1"], "holdout": ["a/2"], "left_out": ["a/3"]}))
    assert read_split(file) == {"a/1": "train", "a/2": "holdout", "a/3": "left_out"}
    file.write_text(json.dumps({"train": ["a/1"], "holdout": []}))
    assert read_split(file) == {"a/1": "train"}


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": ["a/1"], "holdout": [], "left_out": ["a/1"]}, "names a subject twice"),
        ({"train": ["a/1"]}, "no split with the lists train and holdout"),
        (["a/1"], "no split with the lists train and holdout"),
    ],
    ids=str,
)
def test_a_split_that_cannot_be_read_is_refused(tmp_path: Path, split: object, message: str):
    file = tmp_path / "pretrain.json"
    file.write_text(json.dumps(split))
    with pytest.raises(DataError, match=message):
        read_split(file)
