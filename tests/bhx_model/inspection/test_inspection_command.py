"""The command line on a tiny experiment."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bhx_model.data import npz
from bhx_model.inspection import __main__ as command
from bhx_model.inspection import structure


def read(path):
    arrays = npz.read(path, "")
    return json.loads(str(arrays.pop("about"))), arrays


def endpoint_words(trained, out, *more):
    return [
        "endpoint", "--labels", str(trained["labels"]), "--function", str(trained["function"]),
        "--shards", str(trained["town"]), "--out", str(out), *more,
    ]  # fmt: skip


def of_fusion(trained):
    return "--fusion", str(trained["fusion"]), "--tokens", str(trained["tokens_town"])


def test_hub_tokens(trained, tmp_path):
    out = tmp_path / "a" / "x.npz"
    assert command.main(endpoint_words(trained, out, *of_fusion(trained))) == 0
    about, arrays = read(out)
    assert about["readout"] == "mean hub token"
    assert about["synthetic"] is True
    n = len(arrays["subjects"])
    assert arrays["plane"].shape == (n, 2)
    layers, hubs, segments = arrays["attention"].shape
    assert segments == 3
    assert arrays["untrained"].shape == (layers, hubs, 3)
    assert not np.allclose(arrays["attention"], arrays["untrained"], atol=1e-4)
    assert 0 < arrays["even"] < 1
    assert arrays["saliency"].shape == arrays["signed"].shape == arrays["roi_names"].shape
    assert arrays["saliency"].sum() == pytest.approx(1, abs=1e-4)
    assert out.stat().st_size < 50_000
    again = tmp_path / "y.npz"
    assert command.main(endpoint_words(trained, again, *of_fusion(trained))) == 0
    assert again.read_bytes() == out.read_bytes()


def test_function_tokens_have_no_attention(trained, function_tokens, tmp_path):
    out = tmp_path / "x.npz"
    assert command.main(endpoint_words(trained, out, "--function-tokens", str(function_tokens))) == 0
    about, arrays = read(out)
    assert about["readout"] == "regions of function tokens"
    assert "attention" not in arrays
    assert arrays["saliency"].max() > 0


def test_nothing_to_read_is_refused(trained, tmp_path, caplog):
    assert command.main(endpoint_words(trained, tmp_path / "x.npz")) == 1
    assert "nothing to read: name --fusion with --tokens, or --function-tokens" in caplog.text


def test_structure(trained, tmp_path, monkeypatch):
    words = ["structure", "--structure", str(trained["structure"]), "--split", str(trained["split"])]
    words += ["--shards", str(trained["town"]), str(trained["ward"]), "--out", str(tmp_path / "x.npz")]
    assert command.main(words) == 0
    about, arrays = read(tmp_path / "x.npz")
    assert about["n"] == 4
    assert -1 <= about["correlation"] <= 1
    assert set(arrays) == {f"{name}_{axis}" for name in ("original", "masked", "filled") for axis in range(3)}
    # of people who were measured there are too few: no picture
    monkeypatch.setattr(structure, "FEWEST_SYNTHETIC", structure.FEWEST_MEASURED)
    assert command.main(words) == 0
    about, arrays = read(tmp_path / "x.npz")
    assert (about["n"], about["correlation"], arrays) == (4, None, {})
