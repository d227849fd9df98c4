"""Exported weights embed a subject's scans, and refuse what they cannot use."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_shards import NAMES

import bhx_model
from bhx_model.data import augment, timeseries, token_index
from bhx_model.errors import DataError
from bhx_model.evaluation.hub_tokens import mean_hub_tokens
from bhx_model.evaluation.labelled_tokens import join
from bhx_model.evaluation.labels import read_labels
from bhx_model.training.trained import load_trained


def test_importing_the_package_does_not_import_torch():
    code = "import sys, bhx_model; bhx_model.__version__; sys.exit('torch' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'pretrained'"):
        _ = bhx_model.pretrained
    assert set(bhx_model.__all__) <= set(dir(bhx_model))
    assert (Path(bhx_model.__file__).parent / "py.typed").exists()


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bhx_model.release.embed", None)
    with pytest.raises(ModuleNotFoundError, match=r"bhx_model\.release\.embed"):  # ours: no extra brings it
        bhx_model.from_pretrained  # noqa: B018
    monkeypatch.delitem(sys.modules, "bhx_model.release.embed")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"the package torch is not installed: pip install 'bhx\[model\]'"
    ):
        bhx_model.from_pretrained  # noqa: B018


def test_loading_imports_no_compiler():
    """Which takes longer to import than torch itself."""
    code = "import sys, bhx_model; bhx_model.from_pretrained; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("gain", [1e-8, 1e-4, 1.0, 1e8])
@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_units_and_offsets_of_a_run_cost_no_digits(model, subject, gain, offset):
    """`offset` in spreads; the tokens of embed, and those that training and evaluation compute from what is stored."""
    series, tr_s, _ = subject
    expected = model.embed(series, tr_s, NAMES).ravel()
    moved = gain * (series.astype(np.float64) + offset * series.std(axis=1, keepdims=True, dtype=np.float64))
    stored = timeseries.decode(timeseries.encode(moved.astype(np.float32)))
    # at an offset of a million spreads, float32 itself holds a fluctuation in steps of a sixteenth of its spread
    single = 0.9995 if offset > 1e5 else 0.9999
    for given in (moved, moved.astype(np.float32), stored):
        tokens = model.embed(given, tr_s, NAMES).ravel()
        cosine = float(tokens @ expected / np.linalg.norm(tokens) / np.linalg.norm(expected))
        assert cosine > (single if given.dtype == np.float32 else 0.9999), (given.dtype, cosine)
    plan = augment.plan_series(tr_s, stored.shape[1], model.function.config)
    batch = torch.from_numpy(augment.apply_plan(stored, plan, model.function.config))[None]
    with torch.inference_mode():
        tokens = model.function.encode(batch, plan.patch_frames)[0].ravel().numpy()
    assert float(tokens @ expected / np.linalg.norm(tokens) / np.linalg.norm(expected)) > single


def test_three_lines_embed_a_subject(model, subject, trained):
    series, tr_s, t1w = subject
    hub = model.embed(series, tr_s=tr_s, roi_names=NAMES, t1w=t1w)
    assert hub.shape == (16, 64)
    assert hub.dtype == np.float32
    # the same tokens as in the evaluation
    fusion = load_trained(trained["fusion"], "fusion")
    data = join(read_labels(trained["labels"]), token_index.open_tokens(trained["tokens_town"]))
    features = mean_hub_tokens(data, fusion, torch.device("cpu"))
    np.testing.assert_allclose(hub.mean(axis=0), features[data.labels.subjects.index("002")], atol=2e-4)
    assert model.embed(series, tr_s, NAMES).shape == (20, 6, 64)
    # neither units nor offset of the series matter
    changed = model.embed(0.3 * series - 200, tr_s, NAMES, t1w)
    np.testing.assert_allclose(changed, hub, atol=2e-2)
    # nor how the T1 lies in memory
    t1w.flags.writeable = False
    same = model.embed(series, tr_s, NAMES, t1w[::-1, :, ::-1].copy()[::-1, :, ::-1])
    np.testing.assert_array_equal(same, model.embed(series, tr_s, NAMES, t1w))
    # a missing parcel is allowed
    series = series.copy()
    series[5] = np.nan
    assert np.isfinite(model.embed(series, tr_s, NAMES, t1w)).all()


def test_patches_of_a_series_with_cuts_end_at_them(model, subject):
    series, _, _ = subject
    whole = [series[:, :40], series[:, 50:60], series[:, 62:]]  # 2, 0 and 2 patches of 18 frames
    cut = np.concatenate(whole, axis=1)
    segments = [(0, 40), (50, 60), (62, series.shape[1])]
    tokens = model.embed(cut, 2.0, NAMES, segments=segments)
    joined = np.concatenate([whole[0][:, :36], whole[2][:, : tokens.shape[1] * 18 - 36]], axis=1)
    np.testing.assert_allclose(tokens, model.embed(joined, 2.0, NAMES), atol=1e-5)
    assert tokens.shape[1] < model.embed(cut, 2.0, NAMES).shape[1]
    with pytest.raises(DataError, match="not ascending ranges"):
        model.embed(cut, 2.0, NAMES, segments=[(0, 40), (50, 60)])
    with pytest.raises(DataError, match="3 segments, the longest of 17"):
        model.embed(cut[:, :40], 2.0, NAMES, segments=[(0, 17), (20, 37), (40, 46)])


def faults(series, tr_s, t1w):
    nan, still = series.copy(), series.copy()
    nan[2, 5], still[2] = np.nan, 7.0
    by_roi = series - series.mean(axis=1, keepdims=True)
    by_roi = by_roi / by_roi.std(axis=1, keepdims=True).clip(1e-6)
    swapped = [NAMES[1], NAMES[0], *NAMES[2:]]
    return {
        "milliseconds": ((series, 1000 * tr_s, NAMES, t1w), "looks like milliseconds: give 2"),
        "negative TR": ((series, -2.0, NAMES, t1w), "in seconds, between"),
        "zero TR": ((series, 0.0, NAMES, t1w), "in seconds, between"),
        "TR as text": ((series, "2.0", NAMES, t1w), "as a number"),
        "names": ((series, tr_s, swapped, t1w), f"row 0 is '{NAMES[1]}', the model's is '{NAMES[0]}'"),
        "too few names": ((series[:19], tr_s, NAMES[:19], t1w), "19 ROIs, but the model knows 20"),
        "too few rows": ((series[:19], tr_s, NAMES, t1w), r"series has shape \(19, \d+\)"),
        "transposed": ((series.T, tr_s, NAMES, t1w), "check atlas and axes"),
        "standardised": ((by_roi, tr_s, NAMES, t1w), "standardised by itself: give parcel means"),
        "short": ((series[:, :10], tr_s, NAMES, t1w), "shorter than one patch"),
        "NaN": ((nan, tr_s, NAMES, t1w), "NaN or infinite in some frames"),
        "constant": ((still, tr_s, NAMES, t1w), "never changes"),
        "nothing": ((np.full_like(series, np.nan), tr_s, NAMES, t1w), "NaN throughout"),
        "other grid": ((series, tr_s, NAMES, t1w[:-1]), r"the T1 has \(31, 48, 32\) voxels"),
        "NaN volume": ((series, tr_s, NAMES, t1w * np.nan), "the T1 holds NaN"),
        "raw volume": ((series, tr_s, NAMES, 300 * t1w + 500), "not intensity-normalised"),
        "volume between 0 and 1": (
            (series, tr_s, NAMES, (t1w - t1w.min()) / np.ptp(t1w)),
            "minimum 0, it is not",
        ),
    }


@pytest.mark.parametrize(
    "fault", list(faults(np.eye(20, 100, dtype=np.float32), 2.0, np.eye(32, 32, dtype=np.float32)))
)
def test_unusable_inputs_are_a_sentence(model, subject, fault):
    arguments, sentence = faults(*subject)[fault]
    with pytest.raises(DataError, match=sentence):
        model.embed(*arguments)


@pytest.mark.parametrize("stage", ["structure", "function", "fusion"])
def test_weights_that_were_altered_are_refused(exported, tmp_path, stage):
    folder = shutil.copytree(exported, tmp_path / "export")
    content = bytearray((folder / f"{stage}.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / f"{stage}.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=rf"{stage}\.safetensors is not the file that was exported"):
        bhx_model.from_pretrained(folder)


def test_an_incomplete_export_is_refused(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "export")
    (folder / "fusion.safetensors").unlink()
    with pytest.raises(DataError, match=r"fusion\.safetensors is missing from the export"):
        bhx_model.from_pretrained(folder)
    (folder / "fusion.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=r"fusion\.safetensors is not the file that was exported"):
        bhx_model.from_pretrained(folder)
    with pytest.raises(DataError, match="is no exported model"):
        bhx_model.from_pretrained(tmp_path)
    for content, sentence in (("{", "is not JSON"), ("[]", "no names and values"), ("{}", "of version None"),
                              ('{"export": 1}', "does not describe the structure stage")):  # fmt: skip
        (folder / "config.json").write_text(content)
        with pytest.raises(DataError, match=sentence):
            bhx_model.from_pretrained(folder)
