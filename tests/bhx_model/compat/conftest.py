"""The golden folder of the published code, and its weights as its checkpoints are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bhx_model.compat import golden as module


@pytest.fixture
def golden(shared):
    """What the published code computed."""
    return shared("golden")


@pytest.fixture
def released(golden, tmp_path):
    """The golden weights as the published checkpoints are: .pth files and two CSVs."""
    weights = {
        stage: module._weights(golden / f"{stage}_weights.npz")
        for stage in ("structure", "function", "fusion")
    }
    # theirs is of another number of time patches, and holds tables
    weights["function"]["encoder.pos_embed.emb_h_encoder"] = torch.zeros(20 * 10, 24)
    weights["structure"]["pos_embed"] = torch.zeros(1, 1201, 48)
    torch.save(weights["function"], tmp_path / "function.pth")
    torch.save({"model": weights["structure"], "epoch": 3}, tmp_path / "structure.pth")
    torch.save({"model": {f"module.{k}": v for k, v in weights["fusion"].items()}}, tmp_path / "fusion.pth")
    with np.load(golden / "function_cases.npz") as cases:
        rows = [["", *(f"Mode_{i}" for i in range(1, 13))]]
        rows += [[f"ROI_{i + 1}", *map(repr, row.tolist())] for i, row in enumerate(cases["harmonics"])]
        (tmp_path / "modes.csv").write_text("\n".join(",".join(row) for row in rows))
        np.savetxt(tmp_path / "gradients.csv", cases["gradients"], delimiter=",", fmt="%.9g")
    files = {stage: tmp_path / f"{stage}.pth" for stage in weights}
    return {**files, "harmonics": tmp_path / "modes.csv", "gradients": tmp_path / "gradients.csv"}
