"""Structure tokens: what is in their file, and what is predicted from them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_shards import write_cohort, write_labels

from bhx_model.data import shards
from bhx_model.data.batch import intensities
from bhx_model.errors import DataError
from bhx_model.evaluation import __main__ as evaluation
from bhx_model.evaluation import readouts, structure_tokens, token_readout_file
from bhx_model.training.trained import load_trained


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("structure_tokens") / "town.npz"
    words = ["--structure", str(trained["structure"]), "--shards", str(trained["town"]), "--out", str(out)]
    assert structure_tokens.main(words) == 0
    return out


def test_it_holds_the_readouts_of_every_t1(trained, made):
    volumes = shards.open_index(trained["town"]).samples["t1w"]
    model = load_trained(trained["structure"], "structure").model
    found = token_readout_file.read([made], "mean", "structure")
    assert list(found.people) == [volume.subject for volume in volumes]
    steps = torch.from_numpy(shards.read_t1w([volumes[3]], model.grid))
    tokens = model.encode(intensities(steps))
    np.testing.assert_allclose(found.features[3], tokens.mean(dim=1)[0].numpy(), atol=2e-3, rtol=1e-3)
    blocks = token_readout_file.read([made], "blocks", "structure").features
    patches = [size // model.config.patch for size in model.grid]
    assert blocks.shape[1] == np.prod([min(readouts.BLOCKS, n) for n in patches])


def test_blocks_are_means_of_neighbours():
    tokens = torch.arange(4 * 5 * 2, dtype=torch.float32).reshape(1, 40, 1)
    found = readouts.blocks(tokens, (4, 5, 2))
    assert found.shape == (1, 4 * 4 * 2, 1)
    assert found[0, 0, 0] == 0.5 * (
        tokens[0, 0, 0] + tokens[0, 2, 0]
    )  # of five patches the first two, along y
    assert readouts.blocks(tokens, (1, 40, 1)).shape == (1, 4, 1)


@pytest.mark.parametrize("method", ["structure", "structure_attentive"])
def test_an_endpoint_is_predicted_without_series_or_fusion(trained, made, tmp_path, method):
    labels = write_labels(tmp_path / "labels.json", "town", range(12))
    words = [
        "--method",
        method,
        "--structure-tokens",
        made,
        "--structure",
        trained["structure"],
        "--labels",
        labels,
    ]
    words += [
        "--seed",
        "0",
        "--experiment",
        "demo",
        "--out",
        tmp_path,
        "--set",
        '{"epochs": 2, "warmup_epochs": 1}',
    ]
    assert evaluation.main([str(word) for word in words]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert (found["method"], found["weights"].keys()) == (method, {"structure"})
    assert found["excluded"] == [{"subject": "011", "reason": "no structure tokens: no usable T1"}]


def test_tokens_of_several_cohorts_are_of_one_encoder(trained, made, tmp_path):
    other = write_cohort(tmp_path / "ward/shards", "ward", subjects=5, batches=1, seed=1)
    structure_tokens.write(trained["structure"], other, tmp_path / "ward.npz")
    found = token_readout_file.read([made, tmp_path / "ward.npz"], "mean", "structure")
    assert list(found.cohorts) == ["town", "ward"]
    assert {one.split("/")[0] for one in found.people} == {"town", "ward"}
    arrays = dict(np.load(tmp_path / "ward.npz"))
    about = json.loads(str(arrays["about"])) | {"structure": "another"}
    np.savez(tmp_path / "ward.npz", **{**arrays, "about": np.array(json.dumps(about))})
    with pytest.raises(DataError, match="are tokens of other weights"):
        token_readout_file.read([made, tmp_path / "ward.npz"], "mean", "structure")
