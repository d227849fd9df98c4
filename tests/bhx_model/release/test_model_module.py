"""An exported model is an ordinary module: its parameters, its gradients, its parts, its device."""

from __future__ import annotations

import dataclasses
import doctest
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_shards import NAMES

import bhx_model
from bhx_model.errors import ConfigError, DataError, SiteError
from bhx_model.release import embed


@pytest.fixture
def own_model(exported):
    return bhx_model.from_pretrained(exported)


def test_it_is_a_module_whose_used_parameters_learn(own_model, subject):
    series, tr_s, t1w = subject[0].copy(), *subject[1:]
    assert isinstance(own_model, torch.nn.Module)
    assert not own_model.training
    series[3] = np.nan  # not covered
    batch = torch.from_numpy(np.stack([series, 2 * series])).requires_grad_()
    volume = torch.from_numpy(np.stack([t1w, t1w]))
    own_model.train()(batch, tr_s, volume).square().sum().backward()
    assert batch.grad.isfinite().all()
    assert batch.grad.abs().sum() > 0
    learns = {n for n, p in own_model.named_parameters() if p.requires_grad}
    without = {n for n in learns if own_model.get_parameter(n).grad is None}
    # the final norm of the fusion and of each encoder are used, a predictor or decoder is not
    assert without == set()
    assert any(name.startswith("function.target.blocks") for name in learns)
    assert not any("predictor" in name or "decoder" in name for name in learns)


def test_series_are_encoded_many_at_once_as_each_alone(model, subject):
    series, tr_s, _ = subject
    series = series.astype(np.float64)
    series[5] = np.nan
    with torch.no_grad():
        many = model.encode_series(torch.from_numpy(np.stack([series, series[::-1]])), tr_s).numpy()
        single = model.encode_series(torch.from_numpy(series[None]).float(), tr_s).numpy()
    expected = model.embed(series, tr_s, NAMES)
    assert expected.shape[1] == int(np.ceil(series.shape[1] * tr_s / 36))
    np.testing.assert_allclose(many[0], expected, atol=2e-3)
    np.testing.assert_allclose(single[0], expected, atol=2e-3)


def test_short_series_are_padded_and_long_ones_cut(model):
    short = torch.randn(3, 20, 5)
    assert model.encode_series(short, 2.0).shape == (3, 20, 1, 64)
    most = model.function.config.time_patches
    assert model.encode_series(torch.randn(1, 20, 18 * (most + 2)), 2.0).shape == (1, 20, most, 64)
    for bad in (torch.randn(20, 50), torch.randn(2, 50, 20), torch.randn(0, 20, 50), torch.randn(2, 20, 0)):
        with pytest.raises(DataError, match="expected \\(subjects, 20 ROIs, frames\\)"):
            model.encode_series(bad, 2.0)
    with pytest.raises(DataError, match="looks like milliseconds"):
        model.encode_series(short, 2000)


def test_a_shorter_run_of_a_batch_has_the_tokens_that_it_has_alone(own_model, subject):
    """Frames of NaN behind its end are no patches that others could look at."""
    series, tr_s, t1w = subject
    series = series.astype(np.float64)
    short = series[:, :40].copy()
    batch = np.full((3, *series.shape), np.nan)
    batch[0, :, :40], batch[1], batch[2, :, :30] = short, series, series[:, :30]
    volumes = np.stack([t1w] * 3)
    with torch.no_grad():
        tokens = own_model.encode_series(batch, tr_s).numpy()
        hub = own_model(batch, tr_s, volumes).numpy()
    for run, of_run, fused in zip((short, series, series[:, :30]), tokens, hub, strict=True):
        alone = own_model.embed(run, tr_s, NAMES)
        np.testing.assert_allclose(of_run[:, : alone.shape[1]], alone, atol=1e-4)
        assert np.isnan(of_run[:, alone.shape[1] :]).all()
        np.testing.assert_allclose(fused, own_model.embed(run, tr_s, NAMES, t1w), atol=2e-2)
    # the filter to one repetition time reads all frames, so none may be missing
    own_model.function.config = dataclasses.replace(own_model.function.config, tr="fixed", tr_augment=False)
    many = np.repeat(batch, 8, axis=2)
    with torch.no_grad():
        tokens = own_model.encode_series(many, 0.2).numpy()
    alone = own_model.embed(many[2, :, :240], 0.2, NAMES)
    np.testing.assert_allclose(tokens[2, :, : alone.shape[1]], alone, atol=5e-3)


def test_gradients_reach_every_run_of_a_list(own_model, subject):
    series = torch.from_numpy(subject[0].astype(np.float64))
    runs = [
        series.clone().requires_grad_(),
        series.clone().index_fill(1, torch.arange(40, 50), torch.nan)[:, :50],
    ]
    runs[1] = torch.cat([runs[1], torch.full_like(series[:, 50:], torch.nan)], dim=1).requires_grad_()
    own_model.encode_series(runs, subject[1]).nansum().backward()
    for run in runs:
        assert run.grad.isfinite().all()
        assert run.grad.abs().sum() > 0


def batches_that_cannot_be_used(series):
    batch = torch.from_numpy(np.stack([series, series]))
    infinite, absent = batch.clone(), batch.clone()
    infinite[0, 3, 5], absent[1] = torch.inf, torch.nan
    gap, late, still = batch.clone(), batch.clone(), batch.clone()
    gap[1, 3, 5], late[1, :, :9], still[1, 4] = torch.nan, torch.nan, 7.0
    alone = batch.double() - batch.double().mean(dim=-1, keepdim=True)
    alone /= alone.std(dim=-1, keepdim=True).clamp_min(1e-6)
    return {
        "complex": (batch + 1j, "give real numbers"),
        "truth values": (batch > 0, "give real numbers"),
        "two lengths": ([series, series[:, :50]], "fill the shorter with NaN"),
        "two lengths of tensors": ([batch[0], batch[0, :, :50]], "fill the shorter with NaN"),
        "infinite": (infinite, "has infinite values"),
        "a gap": (gap, "run 1 of the batch: ROI row 3 is NaN or infinite in some frames"),
        "a late start": (late, "run 1 of the batch: ROI row 0 is NaN or infinite in some frames"),
        "constant": (still, "run 1 of the batch: ROI row 4 never changes"),
        "standardised": (alone, "run 0 of the batch: every ROI of the series has the same spread"),
        "half precision": (batch.bfloat16(), "in half precision has .* steps"),
        "rounded": ((batch / 1000).round(), "ROI row . never changes|whole numbers"),
        "quantized": (
            torch.quantize_per_tensor(batch, 1.0, 0, torch.qint32),
            "give real numbers in a dense one",
        ),
        "no run": (absent, "run 1 of the batch is NaN throughout"),
        "too large": (batch.double() * 1e30, "beyond what single precision squares"),
        "None": (None, "expected .subjects, 20 ROIs, frames."),
    }


@pytest.mark.parametrize("fault", list(batches_that_cannot_be_used(np.ones((20, 60), np.float32))))
def test_batches_that_cannot_be_used_are_a_sentence(model, subject, fault):
    batch, sentence = batches_that_cannot_be_used(subject[0])[fault]
    with pytest.raises(DataError, match=sentence):
        model.encode_series(batch, subject[1])


def test_volumes_of_a_batch(model, subject):
    series, tr_s, t1w = subject
    np.testing.assert_array_equal(
        model.encode_volume(t1w[None]).detach(), model.encode_volume([torch.from_numpy(t1w.copy())]).detach()
    )
    for volumes, sentence in (
        (t1w, "expected .subjects, 32, 48, 32."),
        (t1w[None][:0], "expected .subjects, 32, 48, 32."),
        (None, "expected .subjects, 32, 48, 32."),
        (t1w[None] * np.nan, "holds NaN or infinite values"),
        (300 * t1w[None] + 500, "is not intensity-normalised"),
        (np.stack([t1w, np.ones_like(t1w)]), "is not intensity-normalised"),
        (torch.from_numpy(t1w[None] + 1j), "give real numbers"),
    ):
        with pytest.raises(DataError, match=sentence):
            model.encode_volume(volumes)
    with pytest.raises(DataError, match="2 series and 1 T1s: give a T1 for every series"):
        model(np.stack([series, series]), tr_s, t1w[None])


def test_a_fixed_repetition_time_thins_as_the_embedding_does(own_model, subject):
    series = np.repeat(subject[0], 8, axis=1)
    own_model.function.config = dataclasses.replace(own_model.function.config, tr="fixed", tr_augment=False)
    with torch.no_grad():
        many = own_model.encode_series(torch.from_numpy(series[None]), 0.2).numpy()
    expected = own_model.embed(series, 0.2, NAMES)
    assert many[0].shape == expected.shape
    np.testing.assert_allclose(many[0], expected, atol=5e-3)


def test_some_stages_alone(exported, subject):
    series, tr_s, t1w = subject
    model = bhx_model.from_pretrained(exported, stages=["function"])
    assert model.structure is None
    assert model.fusion is None
    assert model.embed(series, tr_s, NAMES).shape == (20, 6, 64)
    with pytest.raises(DataError, match="take no T1"):
        model.embed(series, tr_s, NAMES, t1w)
    assert bhx_model.BrainHarmonix.from_pretrained(exported, stages="function").fusion is None
    both = bhx_model.from_pretrained(exported, stages=("structure", "function"))
    assert both.encode_volume(torch.from_numpy(t1w.copy())[None]).shape[0] == 1
    with pytest.raises(DataError, match="need the stage fusion"):
        both.embed(series, tr_s, NAMES, t1w)


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        (["functions"], "no stage 'functions': choose among structure, function, fusion"),
        ([], "without the function encoder"),
        (["structure"], "without the function encoder"),
        (["function", "fusion"], "add 'structure'"),
        (3, "no stage '3'"),
    ],
)
def test_stages_that_are_none(exported, stages, sentence):
    with pytest.raises(ConfigError, match=sentence):
        bhx_model.from_pretrained(exported, stages=stages)


def test_devices_and_precisions_that_are_none(exported, own_model, subject):
    series, tr_s, _ = subject
    for device in ("gpu", "xla:7", "cuda:99"):
        with pytest.raises(SiteError, match=r"cannot be used here"):
            bhx_model.from_pretrained(exported, device=device)
    assert bhx_model.from_pretrained(exported, device=torch.device("cpu")).device.type == "cpu"
    own_model.half()
    for call in (
        lambda: own_model.embed(series, tr_s, NAMES),
        lambda: own_model.encode_series(torch.randn(1, 20, 50), 2.0),
    ):
        with pytest.raises(ConfigError, match=r"cast to torch.float16"):
            call()


def test_weights_without_numbers_or_of_another_default_are_a_sentence(exported, own_model, subject):
    series, tr_s, _ = subject
    with pytest.raises(ConfigError, match="on the device meta, which holds no numbers"):
        own_model.to("meta").embed(series, tr_s, NAMES)
    torch.set_default_dtype(torch.float64)
    try:
        double = bhx_model.from_pretrained(exported, stages=["function"])
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(
        ConfigError, match=r"float64, or torch's default dtype was that when they were loaded"
    ):
        double.embed(series, tr_s, NAMES)


def test_an_export_of_a_newer_version_is_a_sentence(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "export")
    (folder / "config.json").write_text('{"export": 99}')
    with pytest.raises(DataError, match=r"of version 99, .*install a newer bhx"):
        bhx_model.from_pretrained(folder)


def test_settings_that_another_version_knows_are_a_sentence(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "export")
    about = json.loads((folder / "config.json").read_text())
    about["stages"]["function"]["config"]["model"]["new"] = 1
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=r"config.json is of bhx .*'new' is unknown.*: install that version"):
        bhx_model.from_pretrained(folder)


def test_what_is_no_name(exported):
    for name in (None, 3, b"folder"):
        with pytest.raises(ConfigError, match="is no export: give a folder, or org/name"):
            bhx_model.from_pretrained(name)


def test_examples_of_the_docstring_run(exported, subject):
    series, _, t1w = subject
    given = {"folder": exported, "series": series, "names": NAMES, "volume": t1w, "np": np, "torch": torch}
    found = doctest.testmod(embed, extraglobs=given, verbose=False)
    assert found.attempted >= 6
    assert found.failed == 0


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/use-weights.md"])
def test_the_three_lines_of_the_pages_run(exported, subject, tmp_path, monkeypatch, page):
    text = (Path(__file__).parents[3] / page).read_text(encoding="utf-8")
    code = next(
        c for c in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "from_pretrained" in c
    )
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/experiments/demo/export"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(exported)
    given = {"series": subject[0], "names": NAMES, "folder": folder}
    exec(compile(code, page, "exec"), given)
    assert given["tokens"].shape == (20, 6, 64)


def test_types_are_seen_by_a_checker():
    """Pyright reads this file with the sources (`make lint`); mypy where it is installed."""
    pytest.importorskip("mypy", reason="pyright checks the file in `make lint`")
    words = [
        sys.executable,
        "-m",
        "mypy",
        "--follow-imports=silent",
        str(Path(__file__).with_name("typed_use.py")),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
