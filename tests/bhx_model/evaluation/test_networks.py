"""Networks of others: what they read, that they find what is planted, and what is said where the package is not there."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest
import torch

from bhx_model.evaluation import feature_table, networks
from bhx_model.evaluation.labels import Labels
from bhx_model.evaluation.methods import NETWORKS

N, R = 60, 8


def table(effect: float) -> feature_table.FeatureTable:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((N, R * (R - 1) // 2)).astype(np.float32) * 0.3
    z[:, :7] += effect * (np.arange(N) % 2)[:, None]
    z[3, 5] = np.nan
    names = [f"r{i}" for i in range(R)]
    return feature_table.FeatureTable(
        "correlation", True, ("town",), [f"town/{i}" for i in range(N)], names, z
    )


def labels() -> Labels:
    split = np.array([("train", "train", "train", "val", "test")[i // 2 % 5] for i in range(N)])
    return Labels("e", "town", "binary", ["c", "p"], 0, [str(i) for i in range(N)], np.arange(N) % 2, split)


def test_matrices_are_symmetric_and_whole():
    found = networks.correlations(table(0), labels())
    assert found.shape == (N, R, R)
    assert (found == found.transpose(0, 2, 1)).all()
    assert (np.diagonal(found, axis1=1, axis2=2) == 1).all()
    assert found[0, 0, 1] == pytest.approx(np.tanh(table(0).values[0, 0]))
    mean = np.nanmean(np.tanh(table(0).values[labels().of("train")]), axis=0)
    assert found[3, 0, 6] == pytest.approx(mean[5])


@pytest.mark.parametrize("method", NETWORKS)
def test_a_planted_difference_is_found_and_found_again(tmp_path, method):
    pytest.importorskip("ml4fmri", reason="the extra `networks` is not installed")
    one, file = labels(), tmp_path / "f.npz"
    feature_table.write(table(1.0), file)
    rows = [
        {"subject": s, "label": int(t), "split": str(p)}
        for s, t, p in zip(one.subjects, one.target, one.split, strict=True)
    ]
    split = {
        "endpoint": "e",
        "cohort": "town",
        "kind": "binary",
        "classes": one.classes,
        "seed": 0,
        "rows": rows,
    }
    (tmp_path / "seed-0.json").write_text(json.dumps(split))
    words = ["--method", method, "--labels", tmp_path / "seed-0.json", "--features", file, "--seed", "0"]
    words += ["--set", '{"epochs": 12, "batch_size": 4, "lr": 1}', "--out"]
    found = []
    for out in ("a", "b"):
        assert networks.main([str(word) for word in [*words, tmp_path / out]]) == 0
        found.append((tmp_path / out / "metrics.json").read_bytes())
    assert found[0] == found[1]
    card = json.loads(found[0])
    assert (card["method"], card["experiment"], card["settings"]) == (
        method,
        None,
        {"epochs": 12, "batch_size": 4},
    )
    assert card["metrics"]["auroc"] > 0.8


@pytest.mark.parametrize("method", NETWORKS)
def test_more_than_one_pass_is_made_where_passes_differ(method):
    pytest.importorskip("ml4fmri", reason="the extra `networks` is not installed")
    model = networks.build(method, R, 2).eval()
    x = torch.from_numpy(networks.correlations(table(0), labels())[:8])
    first, second = model(x)[0], model(x)[0]
    assert torch.equal(first, second) == (networks.PASSES[method] == 1)


def test_without_the_package_it_is_a_sentence(tmp_path, monkeypatch):
    plain = builtins.__import__

    def without(name, *rest):
        if name.startswith("ml4fmri"):
            raise ModuleNotFoundError("No module named 'ml4fmri'", name="ml4fmri")
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(networks.SiteError, match=r"pip install 'bhx\[networks\]', or leave the method out"):
        networks.build("brainnetcnn", 4, 2)
