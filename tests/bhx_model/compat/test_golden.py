"""The golden check: all numbers of the published code are met, and what is not compared has not passed."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import torch

from bhx_model.compat import __main__ as command
from bhx_model.compat import golden as module
from bhx_model.config import load_preset
from bhx_model.errors import DataError
from bhx_model.nets.pos_embed import sincos_grid


def test_every_golden_case_is_met(golden, capsys):
    assert command.main(["check", str(golden)]) == 0
    text = capsys.readouterr().out
    for part in (
        "position code, encoder", "position code, predictor", "patch kernel, k=12", "patch embedding, k=48",
        "function tokens, k=16", "beside padding, k=24", "JEPA loss, k=18", "structure tokens", "fusion latents",
        "fusion prediction", "fusion loss", "downstream features", "downstream logits",
    ):  # fmt: skip
        assert part in text
    assert "FAILS" not in text
    assert "49 of 49" in text


def copied(golden, folder, name, change):
    """A golden folder in which one file's arrays are changed, or which lacks some."""
    shutil.copytree(golden, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    with np.load(golden / name) as file:
        arrays = {key: file[key] for key in file.files}
    change(arrays)
    np.savez(folder / name, **arrays)
    return folder


def test_a_small_change_of_one_token_is_seen(golden, tmp_path):
    def change(arrays):
        arrays["k18_tokens"][1, 7, 3] += 1e-3

    folder = copied(golden, tmp_path / "golden", "function_cases.npz", change)
    metadata = json.loads((folder / "config.json").read_text())
    with torch.inference_mode():
        failed = [case.name for case in module._check_function(folder, metadata) if not case.passes]
    assert failed == ["function tokens, k=18, 6 patches", "function tokens beside padding, k=18"]


def removed(name):
    return lambda arrays: arrays.pop(name)


def renamed(name):
    def change(arrays):
        arrays[f"x{name}"] = arrays.pop(name)

    return change


def replaced(name, index, value):
    def change(arrays):
        arrays[name][index] = value

    return change


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("function_cases", removed("k48_input"), "k48_input is missing, so its case cannot be checked"),
        ("function_cases", removed("pos_encoder"), "pos_encoder is missing"),
        ("function_cases", removed("resized_kernel_24"), "resized_kernel_24 is missing"),
        ("function_cases", renamed("resized_kernel_15"), "xresized_kernel_15 belong to no known case"),
        ("function_weights", removed("decoder.predictor_blocks.0.norm2.bias"), "lacks predictor.blocks.0.norm2.bias"),
        ("function_cases", replaced("k24_target_index", (0, 0), 20 * 6), "k24_target_index names a token .* of no ROI"),
        ("function_cases", replaced("k24_target_index", (0, 0), 4), "names a token .* of padding"),
        ("function_cases", replaced("k48_context_index", (1, 5), 0), "names a token twice"),
        ("function_cases", replaced("k16_valid_patches", (), 7), "k16_valid_patches is 7, .* allows 1 to 6"),
        ("structure_cases", renamed("tokens"), "tokens is missing"),
        ("fusion_cases", removed("latent"), "latent is missing"),
        ("fusion_weights", removed("decoder_norm.bias"), "lacks decoder_norm.bias"),
    ],
)  # fmt: skip
def test_what_is_not_compared_has_not_passed(golden, tmp_path, file, change, sentence):
    folder = copied(golden, tmp_path / "golden", f"{file}.npz", change)
    part = {"function": module._check_function, "structure": module._check_structure}.get(
        file.split("_")[0], module._check_fusion
    )
    with torch.inference_mode(), pytest.raises(DataError, match=sentence):
        list(part(folder, module._read_config(folder)))


def test_golden_files_that_cannot_be_used_are_refused(golden, tmp_path, capsys):
    def error_of(name, content):
        folder = tmp_path / name / str(len(content))
        shutil.copytree(golden, folder, copy_function=shutil.copyfile)
        folder.chmod(0o755)
        (folder / name).write_bytes(content)
        assert command.main(["check", str(folder)]) == 1
        return capsys.readouterr().err

    whole = (golden / "function_cases.npz").read_bytes()
    for broken in (b"", b"text", whole[:3000], whole[:3000] + b"x" + whole[3001:]):
        assert "function_cases.npz is no .npz of plain arrays" in error_of("function_cases.npz", broken)
    assert "rois is None, expected a positive number" in error_of("config.json", b"{}")
    assert "is not JSON" in error_of("config.json", b"{")
    flat = io.BytesIO()
    with np.load(golden / "function_cases.npz") as file:
        np.savez(flat, **{**{key: file[key] for key in file.files}, "k18_input": np.zeros(3)})
    assert "arrays of the function stage do not fit each other" in error_of(
        "function_cases.npz", flat.getvalue()
    )


def test_the_better_defaults_are_not_the_reference(golden, monkeypatch):
    """The golden cases distinguish the switches: with ours they fail. Weights that the reference lacks are left out."""
    published = {"model.connectivity_code": 0, "model.connectivity_weight": 0.0}
    monkeypatch.setattr(
        module, "reference_config",
        lambda stage, changes: load_preset(stage, "base")
        .override({f"model.{k}": v for k, v in changes.items()} | published)
        .model,
    )  # fmt: skip
    metadata = json.loads((golden / "config.json").read_text())
    with torch.inference_mode():
        failed = {case.name for case in module._check_function(golden, metadata) if not case.passes}
    assert "function position code, encoder" in failed
    assert "patch kernel, k=24" in failed
    assert "patch kernel, k=48" not in failed


def test_a_folder_without_golden_files_is_an_error(tmp_path, capsys):
    assert command.main(["check", str(tmp_path)]) == 1
    assert "config.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rois", "patches", "grid"),
    [(13, 4, (32, 48, 32)), (400, 18, (160, 192, 160)), (37, 7, (48, 32, 32)), (3, 1, (32, 32, 48))],
)
def test_sizes_are_read_from_the_arrays(golden, tmp_path, rois, patches, grid):
    """The golden weights fit any number of ROIs and patches; arrays of zeros have the shapes of what is expected."""
    folder = tmp_path / "golden"
    shutil.copytree(golden, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    metadata = json.loads((golden / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**metadata, "rois": rois, "time_patches": patches}))
    n_structure = int(np.prod(grid)) // 16**3
    n_function, zeros = rois * patches, np.zeros
    n = n_function + n_structure
    np.savez(
        folder / "structure_cases.npz",
        tokens=zeros((1, n_structure, 48)),
        pos_embed=np.pad(sincos_grid(tuple(e // 16 for e in grid), 48), ((1, 0), (0, 0)))[None],
        volume_sample=zeros(grid)[::37, ::41, ::33],
    )
    np.savez(
        folder / "fusion_cases.npz",
        tokens_sample=zeros((n, 768))[::611, ::59], prediction_every_97th=zeros((n, 768))[::97],
        pos_embed_sample=zeros((n + 1, 48))[::401], decoder_pos_embed_sample=zeros((n + 1, 24))[::401],
        latent=zeros((1, 17, 48)), loss=zeros(()), valid_patches=np.array(max(patches - 1, 1)),
    )  # fmt: skip
    with torch.inference_mode():
        structure = {case.name: case for case in module._check_structure(folder, metadata)}
        fusion = list(module._check_fusion(folder, {**metadata, "rois": rois, "time_patches": patches}))
    assert structure["structure position code"].passes, "the grid was found"
    assert len(fusion) == 8


def test_sizes_that_fit_nothing_are_refused(golden, tmp_path):
    def change(arrays):
        arrays["prediction_every_97th"] = arrays["prediction_every_97th"][:-2]

    folder = copied(golden, tmp_path / "golden", "fusion_cases.npz", change)
    metadata = json.loads((golden / "config.json").read_text())
    with pytest.raises(DataError, match="name fusion_rois and fusion_time_patches"):
        list(module._check_fusion(folder, metadata))
