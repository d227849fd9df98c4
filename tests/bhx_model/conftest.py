"""ROIs and small models for the tests of the networks, tiny shards and a tiny experiment for the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_shards import words, write_cohort, write_labels, write_rois, write_split

from bhx_model.command_line import start_logging
from bhx_model.config import FunctionConfig, FusionConfig, FusionInputs, StructureConfig
from bhx_model.data.rois import RoiMetadata
from bhx_model.evaluation import function_tokens as function_tokens_command
from bhx_model.training import tokens, train


@pytest.fixture(autouse=True, scope="session")
def _process():
    """One thread, whose sums are always in one order; and a log, as every command starts one."""
    torch.set_num_threads(1)
    start_logging()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def make_rois():
    """ROI metadata of any size, with a normaliser that does something."""

    def make(n: int = 7, modes: int = 6, gradients: int = 3) -> RoiMetadata:
        rng = np.random.default_rng(n)
        return RoiMetadata(
            atlas="test",
            names=tuple(f"roi-{i}" for i in range(n)),
            hemisphere=(np.arange(n) >= n // 2).astype(np.int8),
            harmonics=rng.normal(size=(n, modes)).astype(np.float32) * 0.003,
            eigenvalues=np.zeros((2, modes)),
            gradients=rng.normal(size=(n, gradients)).astype(np.float32) * 0.02,
            median=rng.normal(size=n).astype(np.float32) + 100,
            iqr=rng.uniform(1, 3, n).astype(np.float32),
        )

    return make


@pytest.fixture
def make_series():
    """A batch of raw series around the normaliser's centre."""

    def make(rois: RoiMetadata, batch: int, frames: int) -> torch.Tensor:
        noise = np.random.default_rng(frames).normal(size=(batch, len(rois), frames))
        scaled = noise * rois.iqr[:, None] + rois.median[:, None]
        return torch.from_numpy(scaled.astype(np.float32))

    return make


@pytest.fixture
def structure_config() -> StructureConfig:
    """A structure model of a few thousand weights."""
    return StructureConfig(
        patch=4, width=24, depth=2, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2
    )


@pytest.fixture
def function_config() -> FunctionConfig:
    """A function model of a few thousand weights."""
    return FunctionConfig(
        width=16, depth=2, heads=2, predictor_width=8, predictor_depth=2, predictor_heads=2, time_patches=5
    )


@pytest.fixture
def fusion_config() -> FusionConfig:
    """A fusion model of a few thousand weights."""
    return FusionConfig(
        hub_tokens=3, width=24, depth=2, heads=2, decoder_width=16, decoder_depth=2, decoder_heads=2
    )


@pytest.fixture
def fusion_inputs() -> FusionInputs:
    """Tokens of two encoders of equal width: 2 x 3 x 2 patches, 7 ROIs, up to 5 time patches."""
    return FusionInputs(
        structure_grid=(2, 3, 2), structure_width=16, rois=7, time_patches=5, function_width=16
    )


@pytest.fixture(scope="session")
def house(tmp_path_factory) -> dict[str, Path]:
    """Shards of two cohorts, rois.npz and the split; only to be read."""
    folder = tmp_path_factory.mktemp("house")
    return {
        "town": write_cohort(folder / "town" / "shards", "town", subjects=12),
        "ward": write_cohort(folder / "ward" / "shards", "ward", subjects=5, batches=1, trs=(0.8,), seed=1),
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


@pytest.fixture(scope="session")
def function_tokens(trained, tmp_path_factory) -> Path:
    """Function tokens of `town`, made by the command line."""
    out = tmp_path_factory.mktemp("function_tokens") / "town.npz"
    words = ["--function", str(trained["function"]), "--shards", str(trained["town"]), "--out", str(out)]
    assert function_tokens_command.main(words) == 0
    return out
