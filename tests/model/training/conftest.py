"""Tiny shards that all tests of the training read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_shards import words, write_cohort, write_labels, write_rois, write_split

from bhx_model.training import tokens, train

torch.set_num_threads(1)  # these matrices are too small to share out


@pytest.fixture(scope="session")
def house(tmp_path_factory) -> dict[str, Path]:
    """Shards of two cohorts, rois.npz and the split; only to be read."""
    folder = tmp_path_factory.mktemp("house")
    return {
        "town": write_cohort(folder / "town" / "shards", "town", people=12),
        "ward": write_cohort(folder / "ward" / "shards", "ward", people=5, batches=1, trs=(0.8,), seed=1),
        "rois": write_rois(folder / "rois.npz"),
        "split": write_split(folder / "pretrain.json", {"town": 12, "ward": 5}),
    }


@pytest.fixture(scope="session")
def trained(house, tmp_path_factory) -> dict[str, Path]:
    """All stages of a tiny experiment, made by the command lines."""
    folder = tmp_path_factory.mktemp("experiment")
    places = {
        "runs": folder / "runs",
        "labels": write_labels(folder / "seed-0.json", "town", range(11)),
        **house,
    }
    for stage in ("structure", "function"):
        places[stage] = folder / stage
        assert train.main(words(places, stage, folder / stage)) == 0
    for cohort in ("town", "ward"):
        places[f"tokens_{cohort}"] = folder / "tokens" / cohort / "index.json"
        more = ["--structure", str(places["structure"]), "--function", str(places["function"])]
        more += ["--shards", str(house[cohort]), "--rois", str(house["rois"])]
        assert tokens.main([*more, "--out", str(places[f"tokens_{cohort}"].parent)]) == 0
    places["fusion"] = folder / "fusion"
    listed = ["--tokens", str(places["tokens_town"]), str(places["tokens_ward"])]
    assert train.main([*words(places, "fusion", places["fusion"]), *listed]) == 0
    return places
