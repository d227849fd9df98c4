"""``bhx embed``: every run of a cohort's shards as a row of features."""

from __future__ import annotations

import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_shards import NAMES, T1W_SHAPE, export_words, write_cohort

from bhx_model.data import shards, volumes
from bhx_model.release import embed_cohort, export
from bhx_prep import cli


def words(weights, cohort, out, *more):
    return [
        "embed",
        "--weights",
        str(weights),
        "--cohort",
        str(cohort),
        "--out",
        str(out),
        "--device",
        "cpu",
        *more,
    ]


def test_every_run_of_a_cohort_is_a_row(exported, trained, model, tmp_path, caplog):
    out = tmp_path / "features.parquet"
    with caplog.at_level(logging.INFO, "bhx_model"):
        assert cli.main(words(exported, trained["town"].parent, out)) == 0
    assert "1 runs have no T1" in caplog.text
    table = pq.read_table(out)
    assert table.column_names[:7] == ["cohort", "subject", "key", "tr_s", "n_frames", "synthetic", "f0000"]
    assert table.num_rows == 12
    assert len(table.column_names) == 6 + 64
    about = json.loads(table.schema.metadata[b"bhx"])
    assert about["tokens"] == "hub"
    index = shards.open_index(trained["town"])
    pairs, _ = shards.pair(index.samples["bold"], index.samples["t1w"])
    run, t1w = pairs[3]
    volume = volumes.to_float32(shards.read_t1w([t1w], T1W_SHAPE)[0])
    expected = model.embed(shards.read_bold(run, 20), run.tr_s, NAMES, volume).mean(axis=0)
    row = table.to_pandas().set_index("key").loc[run.key]
    np.testing.assert_allclose(row.filter(like="f0").astype(float), expected, atol=1e-4)
    first = out.read_bytes()
    assert embed_cohort.main(words(exported, trained["town"], out)[1:]) == 0
    assert out.read_bytes() == first
    assert cli.main(words(exported, trained["town"], tmp_path / "f.parquet", "--tokens", "function")) == 0
    assert pq.read_table(tmp_path / "f.parquet").num_rows == 13


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cohort": "absent"}, "absent has no shards"),
        ({"out": "features.csv"}, "name it .parquet"),
        ({"weights": "absent"}, "is no exported model"),
    ],
)
def test_what_cannot_be_embedded_is_a_sentence(exported, trained, tmp_path, capsys, change, sentence):
    given = {"weights": exported, "cohort": trained["town"], "out": tmp_path / "f.parquet", **change}
    assert cli.main(words(**given)) == 1
    assert sentence in capsys.readouterr().err


def test_weights_of_one_stage_and_another_grid(exported, trained, tmp_path, capsys):
    words_of = export_words(trained, tmp_path / "alone")
    assert export.main([words_of[2], words_of[3], *words_of[6:]]) == 0
    out = tmp_path / "f.parquet"
    assert cli.main(words(tmp_path / "alone", trained["town"], out)) == 0
    assert json.loads(pq.read_schema(out).metadata[b"bhx"])["tokens"] == "function"
    assert cli.main(words(tmp_path / "alone", trained["town"], out, "--tokens", "hub")) == 1
    assert "take --tokens function" in capsys.readouterr().err
    other = write_cohort(tmp_path / "small", "small", subjects=3, batches=1, t1w_shape=(16, 16, 16))
    assert cli.main(words(exported, other, out)) == 1
    assert "expected (32, 48, 32)" in capsys.readouterr().err
