"""Three commands of Brainmarks run on the plug-in, on a data set in its Arrow format with series drawn here.

Needs an environment with Brainmarks (docs/how-to/brainmarks.md). `patch` is scored with untrained weights or those that
``BHX_WEIGHTS`` names; `reg`, the hub tokens, only with the latter, because they need a fusion.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("brainmarks.datasets", reason="needs an environment with Brainmarks")

N_ROIS, FRAMES, TR_S = 400, 150, 2.0
REPRESENTATIONS = ["patch", "reg"] if os.environ.get("BHX_WEIGHTS") else ["patch"]
#: Subjects of each split; every second one has the diagnosis.
SPLITS = {"train": 24, "validation": 12, "test": 12}
#: Short versions of their defaults; 0 workers crash Brainmarks itself.
SHORT = ["device=cpu", "num_workers=1", "amp=false"]
SHORT_TRAINING = [*SHORT, "epochs=2", "warmup_epochs=1", "steps_per_epoch=2", "batch_size=4", "accum_iter=1"]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that Brainmarks takes for its store: the files of ABIDE, with series drawn here."""
    from datasets.arrow_writer import ArrowWriter

    root = tmp_path_factory.mktemp("brainmarks")
    rng, diagnoses = np.random.default_rng(0), {}
    for split, count in SPLITS.items():
        folder = root / "abide.schaefer400.arrow" / split
        folder.mkdir(parents=True)
        with ArrowWriter(path=str(folder / "data-00000-of-00001.arrow")) as writer:
            for index in range(count):
                name = f"{split}{index}"
                diagnoses[name] = ["control", "autism"][index % 2]
                series_TR = rng.standard_normal((FRAMES, N_ROIS)).cumsum(0).astype(np.float32)
                mean, std = series_TR.mean(0, keepdims=True), series_TR.std(0, keepdims=True)
                writer.write(
                    {"sub": name, "tr": TR_S, "bold": (series_TR - mean) / std, "mean": mean, "std": std}
                )
            writer.finalize()
    (root / "targets").mkdir()
    (root / "targets/abide_target_map_dx.json").write_text(json.dumps(diagnoses))
    return root


def run(data_root: Path, folder: Path, command: str, *words: str, overrides: list[str]) -> Path:
    """Folder of the results of a command that ended well."""
    environment = {
        **os.environ,
        "BRAINMARKS_DATA_ROOT": str(data_root),
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    overrides = [f"output_root={folder}", *overrides]
    done = subprocess.run(
        [sys.executable, "-m", f"brainmarks.{command}", "bhx", *words, "abide_dx", "--overrides", *overrides],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (results,) = folder.glob("eval_*/abide_dx__bhx__*")
    return results


def assert_scored(results: Path, splits: list[str]) -> None:
    table = pd.read_csv(results / "eval_table.csv")
    assert sorted(set(table["split"])) == sorted(splits)
    assert table["acc"].between(0, 1).all()


@pytest.mark.parametrize("tokens", REPRESENTATIONS)
def test_logistic_regression(data_root, tmp_path, tokens):
    overrides = [*SHORT, "n_trials=2", "Cs=2", "cv_folds=2"]
    results = run(data_root, tmp_path, "main_logistic", tokens, overrides=overrides)
    assert_scored(results, ["train", "test"])


@pytest.mark.parametrize("tokens", REPRESENTATIONS)
def test_linear_probe(data_root, tmp_path, tokens):
    overrides = [*SHORT_TRAINING, "lr_scale_grid=[0.1,1.0]"]
    results = run(data_root, tmp_path, "main_probe", tokens, "linear", overrides=overrides)
    assert_scored(results, ["train", "validation", "test"])


@pytest.mark.parametrize("mode", ["lora", "full_ft"])
@pytest.mark.parametrize("tokens", REPRESENTATIONS)
def test_gradients_of_fine_tuning_reach_the_backbone(data_root, tmp_path, tokens, mode):
    overrides = [*SHORT_TRAINING, f"finetune_mode={mode}"]
    results = run(data_root, tmp_path, "main_finetune", tokens, "linear", overrides=overrides)
    assert_scored(results, ["train", "validation", "test"])
    saved = torch.load(results / "checkpoint-last.pth", map_location="cpu", weights_only=True)
    moments = [state["exp_avg"] for state in saved["optimizer"]["state"].values()]
    assert sum(bool(moment.any()) for moment in moments) > len(saved["classifier"])
    started_at_zero = [tensor for name, tensor in saved["backbone"].items() if "lora_B" in name]
    assert bool(started_at_zero) == (mode == "lora")
    assert any(tensor.any() for tensor in started_at_zero) == (mode == "lora")
