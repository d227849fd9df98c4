"""A trained stage, found in its folder."""

from __future__ import annotations

from bhx_model.training import tokens


def test_weights_of_another_stage_are_refused(trained, tmp_path, capsys):
    more = ["--structure", str(trained["function"]), "--function", str(trained["function"])]
    more += ["--shards", str(trained["town"]), "--rois", str(trained["rois"]), "--out", str(tmp_path / "out")]
    assert tokens.main(more) == 1
    assert "holds the stage function, not structure" in capsys.readouterr().err
