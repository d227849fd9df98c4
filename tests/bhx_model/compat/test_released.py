"""Checkpoints of the published code become stages, or are refused in a sentence."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch

import bhx_model
from bhx_model.compat import __main__ as command
from bhx_model.compat import golden as module
from bhx_model.compat import released as loading
from bhx_model.compat.convert import Sizes
from bhx_model.compat.released import Released
from bhx_model.errors import DataError
from bhx_model.release import export
from bhx_model.training.trained import load_trained


def test_released_files_become_stages(golden, released, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [f"--{name}={path}" for name, path in released.items()]
    assert command.main(["load", *arguments, "--heads=4", f"--out={out}"]) == 0
    text = capsys.readouterr().out
    assert "renamed  encoder_ema.norm.weight -> target.norm.weight" in text
    assert "renamed  module.cls_token -> cls_token" in text, "under DataParallel's names"
    assert (
        "dropped  encoder.pos_embed.emb_h_encoder  (sine and cosine table of 200 x 24, computed here)" in text
    )
    assert "absent   decoder_pred.weight  (untrained" in text, "the structure decoder was not released"
    assert "absent   target.roi_position.harmonics_RM  (from the CSVs and rois.npz)" in text
    assert "not a part of this model" not in text

    function = load_trained(out / "function", "function").model
    with np.load(golden / "function_cases.npz") as cases, torch.inference_mode():
        series, expected = cases["k18_input"][:, 0], cases["k18_tokens"]
        tokens = function.encode(torch.from_numpy(series), 18, target=False)
    np.testing.assert_allclose(tokens, expected, atol=1e-5 * np.abs(expected).max())

    structure = load_trained(out / "structure", "structure").model
    assert structure.n_tokens == 1200
    fusion = load_trained(out / "fusion", "fusion").model
    with np.load(golden / "fusion_weights.npz") as weights:
        hub = weights["latent_tokens"] + weights["enc_latent_token_positional_embedding"]
        np.testing.assert_array_equal(fusion.hub[0], hub)


def test_released_weights_are_used_as_trained_ones_are(released, tmp_path):
    # the golden fusion takes tokens 768 wide: cut it to the width of the golden encoders
    theirs = torch.load(released["fusion"], weights_only=True)["model"]
    narrow = {k: v for k, v in theirs.items() if "pre_map" not in k}
    for name in ("weight", "bias"):
        narrow[f"module.decoder_pred.{name}"] = theirs[f"module.decoder_pred.{name}"][:48]
    torch.save(narrow, released["fusion"])
    out = tmp_path / "out"
    loading.load(Released(**released), out, Sizes(heads=4, time_patches=7))
    folders = {stage: out / stage for stage in ("structure", "function", "fusion")}
    export.export(**folders, rois=out / "rois.npz", out=tmp_path / "export")
    card = (tmp_path / "export" / "README.md").read_text()
    assert "converted from published checkpoints (function.pth, fusion.pth, structure.pth)" in card
    model = bhx_model.from_pretrained(tmp_path / "export")
    assert (model.fusion.inputs.rois, model.fusion.inputs.time_patches) == (20, 7)
    rng = np.random.default_rng(0)
    tokens = model.embed(
        rng.normal(size=(20, 200)), 0.735, model.rois.names, rng.normal(size=model.structure.grid)
    )
    assert tokens.shape == (16, 48)


def test_an_ema_encoder_alone_is_enough_to_embed(released, tmp_path):
    weights = torch.load(released["function"], weights_only=True)
    alone = {
        f"module.{k.replace('encoder_ema.', 'encoder_ema.module.')}": v
        for k, v in weights.items()
        if k.startswith("encoder_ema.")
    }
    torch.save({"model": alone}, released["function"])
    files = {name: released[name] for name in ("function", "harmonics", "gradients")}
    done = loading.load(Released(**files), tmp_path / "out", Sizes(heads=4))
    assert "encoder_ema.module" in done["function"].lines[0].theirs
    model = load_trained(tmp_path / "out" / "function", "function").model
    with torch.inference_mode():
        assert model.encode(torch.randn(1, 20, 96), 48).shape == (1, 40, 48)
    del alone["module.encoder_ema.module.norm.bias"]
    torch.save({"model": alone}, released["function"])
    with pytest.raises(
        DataError, match=r"function: the checkpoint lacks target.norm.bias and 0 more tensors"
    ):
        loading.load(Released(**files), tmp_path / "out", Sizes(heads=4))


def test_checkpoints_of_other_sizes_or_stages_are_refused(released, tmp_path):
    weights = torch.load(released["structure"], weights_only=True)["model"]
    torch.save({**weights, "pos_embed": torch.zeros(1, 1 + 2 * 3 * 2, 48)}, released["structure"])
    files = {"structure": released["structure"]}
    with pytest.raises(DataError, match=r"the checkpoint has 12 patches, .* make 1200: name the voxels"):
        loading.load(Released(**files), tmp_path / "out", Sizes(heads=4))
    loading.load(Released(**files), tmp_path / "out", Sizes(heads=4, grid=(32, 48, 32)))
    assert load_trained(tmp_path / "out" / "structure", "structure").model.grid == (32, 48, 32)
    with pytest.raises(DataError, match="no checkpoint of the fusion stage: it has no latent_tokens"):
        loading.load(Released(fusion=released["structure"]), tmp_path / "out")


def test_names_and_normaliser_come_from_rois_npz(released, tmp_path, make_rois):
    rois = make_rois(20)
    path = tmp_path / "rois.npz"
    np.savez(
        path, atlas=rois.atlas, names=np.array(rois.names), hemisphere=rois.hemisphere, harmonics=rois.harmonics,
        eigenvalues=rois.eigenvalues, gradients=rois.gradients, median=rois.median, iqr=rois.iqr,
    )  # fmt: skip
    files = {name: released[name] for name in ("function", "harmonics", "gradients")}
    loading.load(Released(**files, rois=path), tmp_path / "out", Sizes(heads=4))
    trained = load_trained(tmp_path / "out" / "function", "function")
    assert trained.run["model_metadata"]["roi_names"] == list(rois.names)
    np.testing.assert_array_equal(trained.model.normaliser.median_R, rois.median)
    few = make_rois(7)
    np.savez(
        path, atlas=few.atlas, names=np.array(few.names), hemisphere=few.hemisphere, harmonics=few.harmonics,
        eigenvalues=few.eigenvalues, gradients=few.gradients, median=few.median, iqr=few.iqr,
    )  # fmt: skip
    with pytest.raises(DataError, match="7 ROIs, the CSVs 20"):
        loading.load(Released(**files, rois=path), tmp_path / "out", Sizes(heads=4))


def test_a_predictor_with_its_own_roi_code_is_refused(released, tmp_path):
    weights = torch.load(released["function"], weights_only=True)
    weights["decoder.predictor_pos_embed.grad_proj.bias"] += 1
    torch.save(weights, released["function"])
    files = {name: released[name] for name in ("function", "harmonics", "gradients")}
    with pytest.raises(DataError, match="differ, although published models share them"):
        loading.load(Released(**files), tmp_path / "out", Sizes(heads=4))


def test_checkpoints_that_would_run_code_are_refused(tmp_path, capsys):
    torch.save({"model": {"x": torch.zeros(1)}, "args": module.Case("a", 0.0, 1.0)}, tmp_path / "bad.pth")
    assert command.main(["load", f"--structure={tmp_path / 'bad.pth'}", f"--out={tmp_path}"]) == 1
    assert " ERROR " in capsys.readouterr().err
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="expected a dict of tensors"):
        loading.read_checkpoint(tmp_path / "list.pth")


def test_arguments_beside_the_weights_are_no_code(released, tmp_path):
    """The published training script of the structure and fusion stages saves them so."""
    weights = torch.load(released["structure"], weights_only=True)
    arguments = argparse.Namespace(mask_ratio=0.75, output_dir="out")
    torch.save({**weights, "args": arguments, "scaler": {"scale": 65536.0}}, released["structure"])
    assert loading.read_checkpoint(released["structure"]).keys() == weights["model"].keys()


@pytest.mark.parametrize(
    "content", [b"", b"hello world, this is text", b"<html>cannot scan</html>", b"PK\x03\x04"]
)
def test_files_that_are_no_checkpoints_are_refused(tmp_path, content):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.pth is refused: it is no checkpoint"):
        loading.read_checkpoint(tmp_path / "model.pth")


def test_checkpoints_that_embed_nothing_are_refused(released, tmp_path):
    """Tensors without numbers or of too few axes, and hub tokens without their positions."""
    good = {stage: loading.read_checkpoint(released[stage]) for stage in ("structure", "function", "fusion")}
    faults = [
        ("function", {"encoder_ema.norm.weight": torch.full((48,), torch.nan)}, "values that are not finite"),
        ("function", {"encoder_ema.patch_embed.proj.weight": torch.zeros(())}, "name the right file"),
        ("function", {"encoder.patch_embed.proj.weight": torch.zeros(())}, r"of shape \(\) is no such tensor"),
        ("function", {"decoder.mask_token": torch.zeros(())}, "name the right file"),
        ("fusion", {"module.latent_tokens": torch.zeros(48)}, "name the right file"),
        ("fusion", {"module.enc_latent_token_positional_embedding": torch.zeros(3, 48)}, "has a .3, 48. enc_latent"),
        ("fusion", {"module.enc_latent_token_positional_embedding": None}, "lacks enc_latent_token_positional"),
        ("fusion", {"module.pos_embed": torch.zeros(1, 4001, 48)}, "has 4000 tokens, .* make 1320: name them with"),
        ("structure", {1: torch.zeros(1)}, "expected a dict of tensors"),
    ]  # fmt: skip
    for stage, change, sentence in faults:
        weights = {k: v for k, v in {**good[stage], **change}.items() if v is not None}
        torch.save({"model": weights}, tmp_path / "bad.pth")
        files = {"harmonics": released["harmonics"], "gradients": released["gradients"]}
        with pytest.raises(DataError, match=sentence):
            loading.load(
                Released(**files, **{stage: tmp_path / "bad.pth"}),
                tmp_path / "out",
                Sizes(heads=4, time_patches=6),
            )


def test_sizes_of_nothing_are_refused(released, tmp_path, capsys):
    words = ["load", f"--fusion={released['fusion']}", "--heads=4", f"--out={tmp_path / 'out'}"]
    for more, sentence in (
        ("--n-rois=0", "rois is 0: give a positive number"), ("--time-patches=-1", "time_patches is -1"),
        ("--grid 16 17 16", "does not divide into patches of 16"),
    ):  # fmt: skip
        assert command.main([*words, *more.split()]) == 1
        assert sentence in capsys.readouterr().err


def test_files_that_are_not_there_are_a_sentence(released, tmp_path, capsys):
    for name in ("function", "harmonics", "gradients", "rois"):
        files = {n: released[n] for n in ("function", "harmonics", "gradients")} | {
            name: tmp_path / "no.such"
        }
        words = [f"--{n}={path}" for n, path in files.items()]
        assert command.main(["load", *words, "--heads=4", f"--out={tmp_path / 'out'}"]) == 1
        error = capsys.readouterr().err
        sentence = f"{tmp_path / 'no.such'}: there is no such file: check the name, or make it first\n"
        assert error.split(" ERROR ")[1] == sentence


def test_csvs_without_numbers_are_refused(tmp_path):
    path = tmp_path / "modes.csv"
    for content in (b"", b"a,b\n", b"a,b\nc,d\n", b"1,2\n3\n", b"1;2\n3;4\n", b"\xff\xfe1,2"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"modes\.csv.*expected one row of numbers per ROI"):
            loading.read_table(path)
    path.write_bytes(b"\xef\xbb\xbf1,2\n3,4\n")  # Excel's mark at the start
    np.testing.assert_array_equal(loading.read_table(path), [[1, 2], [3, 4]])


def test_csvs_of_different_atlases_are_refused(released, tmp_path):
    lines = released["gradients"].read_text().splitlines()
    released["gradients"].write_text("\n".join(lines[:-1]))
    files = {name: released[name] for name in ("function", "harmonics", "gradients")}
    with pytest.raises(DataError, match=r"has 20 rows, .*gradients.csv has 19: both need one for every ROI"):
        loading.load(Released(**files), tmp_path / "out", Sizes(heads=4))


def test_nothing_to_load_is_an_error(tmp_path, capsys):
    assert command.main(["load", f"--out={tmp_path}"]) == 1
    assert "nothing to load" in capsys.readouterr().err
