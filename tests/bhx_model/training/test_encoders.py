"""Both frozen encoders: what they refuse and what they do not compute."""

from __future__ import annotations

from tiny_shards import write_cohort

from bhx_model.data import token_index
from bhx_model.nets.jepa import FunctionEncoder
from bhx_model.training import tokens


def test_tokens_of_padding_are_never_computed(trained, tmp_path, monkeypatch):
    computed = []
    forward = FunctionEncoder.forward

    def counted(*arguments, **more):
        out = forward(*arguments, **more)
        computed.append(out.shape[0] * out.shape[1])
        return out

    monkeypatch.setattr(FunctionEncoder, "forward", counted)
    index = tokens.write_cache(
        trained["structure"], trained["function"], trained["town"], trained["rois"], tmp_path / "tokens"
    )
    stored = token_index.open_tokens(index).samples["function"]
    assert {sample.n_tokens for sample in stored} == {6 * 20}, "of 18 patches that the model knows"
    assert sum(computed) == sum(sample.n_tokens for sample in stored)


def test_volumes_of_another_grid_are_refused(trained, tmp_path, capsys):
    other = write_cohort(tmp_path / "town", "town", subjects=3, batches=1, t1w_shape=(32, 32, 32))
    more = ["--structure", str(trained["structure"]), "--function", str(trained["function"])]
    more += ["--shards", str(other), "--rois", str(trained["rois"]), "--out", str(tmp_path / "out")]
    assert tokens.main(more) == 1
    assert "trained on (32, 48, 32)" in capsys.readouterr().err
