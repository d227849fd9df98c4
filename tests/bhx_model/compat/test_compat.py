import argparse
import io
import json
import shutil

import numpy as np
import pytest
import torch

import bhx_model
from bhx_model.compat import convert
from bhx_model.data.rois import RoiMetadata
from bhx_model.release import export
from bhx_model.training.trained import load_trained


@pytest.fixture
def golden(shared):
    """What the published code computed."""
    return shared("golden")


def test_every_golden_case_is_met(golden, capsys):
    assert convert.main(["check", str(golden)]) == 0
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
        failed = [case.name for case in convert._check_function(folder, metadata) if not case.passes]
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
    part = {"function": convert._check_function, "structure": convert._check_structure}.get(
        file.split("_")[0], convert._check_fusion
    )
    with torch.inference_mode(), pytest.raises(ValueError, match=sentence):
        list(part(folder, convert._golden_facts(folder)))


def test_golden_files_that_cannot_be_used_are_told(golden, tmp_path, capsys):
    def told(name, content):
        folder = tmp_path / name / str(len(content))
        shutil.copytree(golden, folder, copy_function=shutil.copyfile)
        folder.chmod(0o755)
        (folder / name).write_bytes(content)
        assert convert.main(["check", str(folder)]) == 1
        return capsys.readouterr().err

    whole = (golden / "function_cases.npz").read_bytes()
    for broken in (b"", b"text", whole[:3000], whole[:3000] + b"x" + whole[3001:]):
        assert "function_cases.npz is no .npz of plain arrays" in told("function_cases.npz", broken)
    assert "rois is None, expected a positive number" in told("config.json", b"{}")
    assert "is not JSON" in told("config.json", b"{")
    flat = io.BytesIO()
    with np.load(golden / "function_cases.npz") as file:
        np.savez(flat, **{**{key: file[key] for key in file.files}, "k18_input": np.zeros(3)})
    assert "arrays of the function stage do not fit each other" in told("function_cases.npz", flat.getvalue())


def test_the_better_defaults_are_not_the_reference(golden, monkeypatch):
    """The golden cases tell the switches apart: with ours they fail."""
    monkeypatch.setattr(
        convert, "reference_config",
        lambda stage, changes: convert.load_preset(stage, "base")
        .override({f"model.{k}": v for k, v in changes.items()})
        .model,
    )  # fmt: skip
    metadata = json.loads((golden / "config.json").read_text())
    with torch.inference_mode():
        failed = {case.name for case in convert._check_function(golden, metadata) if not case.passes}
    assert "function position code, encoder" in failed
    assert "patch kernel, k=24" in failed
    assert "patch kernel, k=48" not in failed


def test_a_folder_without_golden_files_is_an_error(tmp_path, capsys):
    assert convert.main(["check", str(tmp_path)]) == 1
    assert "config.json" in capsys.readouterr().err


@pytest.fixture
def released(golden, tmp_path):
    """The golden weights as the published checkpoints are: .pth files and two CSVs."""
    weights = {
        stage: convert._weights(golden / f"{stage}_weights.npz")
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


def test_released_files_become_stages(golden, released, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [f"--{name}={path}" for name, path in released.items()]
    assert convert.main(["load", *arguments, "--heads=4", f"--out={out}"]) == 0
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
    convert.load(convert.Released(**released), out, convert.Sizes(heads=4, time_patches=7))
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
    done = convert.load(convert.Released(**files), tmp_path / "out", convert.Sizes(heads=4))
    assert "encoder_ema.module" in done["function"].lines[0].theirs
    model = load_trained(tmp_path / "out" / "function", "function").model
    with torch.inference_mode():
        assert model.encode(torch.randn(1, 20, 96), 48).shape == (1, 40, 48)
    del alone["module.encoder_ema.module.norm.bias"]
    torch.save({"model": alone}, released["function"])
    with pytest.raises(
        ValueError, match=r"function: the checkpoint lacks target.norm.bias and 0 more tensors"
    ):
        convert.load(convert.Released(**files), tmp_path / "out", convert.Sizes(heads=4))


def test_checkpoints_of_other_sizes_or_stages_are_told(released, tmp_path):
    weights = torch.load(released["structure"], weights_only=True)["model"]
    torch.save({**weights, "pos_embed": torch.zeros(1, 1 + 2 * 3 * 2, 48)}, released["structure"])
    files = {"structure": released["structure"]}
    with pytest.raises(ValueError, match=r"the checkpoint has 12 patches, .* make 1200: name the voxels"):
        convert.load(convert.Released(**files), tmp_path / "out", convert.Sizes(heads=4))
    convert.load(convert.Released(**files), tmp_path / "out", convert.Sizes(heads=4, grid=(32, 48, 32)))
    assert load_trained(tmp_path / "out" / "structure", "structure").model.grid == (32, 48, 32)
    with pytest.raises(ValueError, match="no checkpoint of the fusion stage: it has no latent_tokens"):
        convert.load(convert.Released(fusion=released["structure"]), tmp_path / "out")


def test_names_and_normaliser_come_from_rois_npz(released, tmp_path, make_rois):
    rois = make_rois(20)
    path = tmp_path / "rois.npz"
    np.savez(
        path, atlas=rois.atlas, names=np.array(rois.names), hemisphere=rois.hemisphere, harmonics=rois.harmonics,
        eigenvalues=rois.eigenvalues, gradients=rois.gradients, median=rois.median, iqr=rois.iqr,
    )  # fmt: skip
    files = {name: released[name] for name in ("function", "harmonics", "gradients")}
    convert.load(convert.Released(**files, rois=path), tmp_path / "out", convert.Sizes(heads=4))
    trained = load_trained(tmp_path / "out" / "function", "function")
    assert trained.run["model_metadata"]["roi_names"] == list(rois.names)
    np.testing.assert_array_equal(trained.model.normaliser.median_R, rois.median)
    few = make_rois(7)
    np.savez(
        path, atlas=few.atlas, names=np.array(few.names), hemisphere=few.hemisphere, harmonics=few.harmonics,
        eigenvalues=few.eigenvalues, gradients=few.gradients, median=few.median, iqr=few.iqr,
    )  # fmt: skip
    with pytest.raises(ValueError, match="7 ROIs, the CSVs 20"):
        convert.load(convert.Released(**files, rois=path), tmp_path / "out", convert.Sizes(heads=4))


def test_a_predictor_with_its_own_roi_code_is_refused(released, tmp_path):
    weights = torch.load(released["function"], weights_only=True)
    weights["decoder.predictor_pos_embed.grad_proj.bias"] += 1
    torch.save(weights, released["function"])
    files = {name: released[name] for name in ("function", "harmonics", "gradients")}
    with pytest.raises(ValueError, match="differ, although published models share them"):
        convert.load(convert.Released(**files), tmp_path / "out", convert.Sizes(heads=4))


def test_checkpoints_that_would_run_code_are_refused(tmp_path, capsys):
    torch.save({"model": {"x": torch.zeros(1)}, "args": convert.Case("a", 0.0, 1.0)}, tmp_path / "bad.pth")
    assert convert.main(["load", f"--structure={tmp_path / 'bad.pth'}", f"--out={tmp_path}"]) == 1
    assert " ERROR " in capsys.readouterr().err
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="expected a dict of tensors"):
        convert.read_checkpoint(tmp_path / "list.pth")


def test_arguments_beside_the_weights_are_no_code(released, tmp_path):
    """The published training script of the structure and fusion stages saves them so."""
    weights = torch.load(released["structure"], weights_only=True)
    arguments = argparse.Namespace(mask_ratio=0.75, output_dir="out")
    torch.save({**weights, "args": arguments, "scaler": {"scale": 65536.0}}, released["structure"])
    assert convert.read_checkpoint(released["structure"]).keys() == weights["model"].keys()


@pytest.mark.parametrize(
    "content", [b"", b"hello world, this is text", b"<html>cannot scan</html>", b"PK\x03\x04"]
)
def test_files_that_are_no_checkpoints_are_refused(tmp_path, content):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pth is refused: it is no checkpoint"):
        convert.read_checkpoint(tmp_path / "model.pth")


def test_checkpoints_that_embed_nothing_are_refused(released, tmp_path):
    """Tensors without numbers or of too few axes, and hub tokens without their positions."""
    good = {stage: convert.read_checkpoint(released[stage]) for stage in ("structure", "function", "fusion")}
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
        with pytest.raises(ValueError, match=sentence):
            convert.load(
                convert.Released(**files, **{stage: tmp_path / "bad.pth"}),
                tmp_path / "out",
                convert.Sizes(heads=4, time_patches=6),
            )


def test_sizes_of_nothing_are_refused(released, tmp_path, capsys):
    words = ["load", f"--fusion={released['fusion']}", "--heads=4", f"--out={tmp_path / 'out'}"]
    for more, sentence in (
        ("--n-rois=0", "rois is 0: give a positive number"), ("--time-patches=-1", "time_patches is -1"),
        ("--grid 16 17 16", "does not divide into patches of 16"),
    ):  # fmt: skip
        assert convert.main([*words, *more.split()]) == 1
        assert sentence in capsys.readouterr().err


def test_files_that_are_not_there_are_a_sentence(released, tmp_path, capsys):
    for name in ("function", "harmonics", "gradients", "rois"):
        files = {n: released[n] for n in ("function", "harmonics", "gradients")} | {
            name: tmp_path / "no.such"
        }
        words = [f"--{n}={path}" for n, path in files.items()]
        assert convert.main(["load", *words, "--heads=4", f"--out={tmp_path / 'out'}"]) == 1
        told = capsys.readouterr().err
        sentence = f"{tmp_path / 'no.such'}: there is no such file: check the name, or make it first\n"
        assert told.split(" ERROR ")[1] == sentence


def test_csvs_without_numbers_are_refused(tmp_path):
    path = tmp_path / "modes.csv"
    for content in (b"", b"a,b\n", b"a,b\nc,d\n", b"1,2\n3\n", b"1;2\n3;4\n", b"\xff\xfe1,2"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"modes\.csv.*expected one row of numbers per ROI"):
            convert.read_table(path)
    path.write_bytes(b"\xef\xbb\xbf1,2\n3,4\n")  # Excel's mark at the start
    np.testing.assert_array_equal(convert.read_table(path), [[1, 2], [3, 4]])


def test_csvs_of_different_atlases_are_refused(released, tmp_path):
    lines = released["gradients"].read_text().splitlines()
    released["gradients"].write_text("\n".join(lines[:-1]))
    files = {name: released[name] for name in ("function", "harmonics", "gradients")}
    with pytest.raises(ValueError, match=r"has 20 rows, .*gradients.csv has 19: both need one for every ROI"):
        convert.load(convert.Released(**files), tmp_path / "out", convert.Sizes(heads=4))


def test_nothing_to_load_is_an_error(tmp_path, capsys):
    assert convert.main(["load", f"--out={tmp_path}"]) == 1
    assert "nothing to load" in capsys.readouterr().err


# --- rois.npz


def test_rois_npz_is_read_and_checked(tmp_path, make_rois):
    rois = make_rois()
    path = tmp_path / "rois.npz"
    arrays = {
        "atlas": np.array(rois.atlas), "names": np.array(rois.names), "hemisphere": rois.hemisphere,
        "harmonics": rois.harmonics, "eigenvalues": rois.eigenvalues, "gradients": rois.gradients,
        "median": rois.median, "iqr": rois.iqr,
    }  # fmt: skip
    np.savez(path, **arrays)
    read = RoiMetadata.load(path)
    assert read.names == rois.names
    assert read.roi_sha256 == rois.roi_sha256
    np.testing.assert_array_equal(read.gradients, rois.gradients)
    faults = {
        "iqr": (np.zeros(7, np.float32), "roi-0 is not positive"),
        "median": (rois.median[:-1], "median is .6,., 7 ROI names need .7,."),
        "gradients": (rois.gradients * np.nan, "gradients holds values that are not finite"),
        "hemisphere": (rois.hemisphere + 5, "0 .left. or 1 .right."),
        "names": (np.array(["a"] * 7), "must be distinct"),
    }
    for name, (value, message) in faults.items():
        np.savez(path, **{**arrays, name: value})
        with pytest.raises(ValueError, match=message):
            RoiMetadata.load(path)
    np.savez(path, **{k: v for k, v in arrays.items() if k != "iqr"})
    with pytest.raises(ValueError, match="iqr missing"):
        RoiMetadata.load(path)
    whole = path.read_bytes()
    for content in (whole[:500], b"text", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is no \.npz of plain arrays, or a broken one: rebuild it"):
            RoiMetadata.load(path)
    for name, value in (
        ("names", np.array([{}])),
        ("iqr", np.array(["a"] * 7)),
        ("harmonics", np.array(1.0)),
    ):
        np.savez(path, **{**arrays, name: value})
        with pytest.raises(ValueError, match=r"rebuild"):
            RoiMetadata.load(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"is no \.npz of plain arrays"):
        RoiMetadata.load(tmp_path / "one.npy")


def test_another_roi_order_is_refused(make_rois):
    rois = make_rois()
    rois.check_order(list(rois.names))
    with pytest.raises(ValueError, match="6 ROIs, but the model knows 7"):
        rois.check_order(rois.names[:-1])
    swapped = [rois.names[1], rois.names[0], *rois.names[2:]]
    with pytest.raises(ValueError, match="row 0 is 'roi-1', the model's is 'roi-0'"):
        rois.check_order(swapped)


# --- other sizes than the golden ones


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
        pos_embed=np.pad(convert.sincos_grid(tuple(e // 16 for e in grid), 48), ((1, 0), (0, 0)))[None],
        volume_sample=zeros(grid)[::37, ::41, ::33],
    )
    np.savez(
        folder / "fusion_cases.npz",
        tokens_sample=zeros((n, 768))[::611, ::59], prediction_every_97th=zeros((n, 768))[::97],
        pos_embed_sample=zeros((n + 1, 48))[::401], decoder_pos_embed_sample=zeros((n + 1, 24))[::401],
        latent=zeros((1, 17, 48)), loss=zeros(()), valid_patches=np.array(max(patches - 1, 1)),
    )  # fmt: skip
    with torch.inference_mode():
        structure = {case.name: case for case in convert._check_structure(folder, metadata)}
        fusion = list(convert._check_fusion(folder, {**metadata, "rois": rois, "time_patches": patches}))
    assert structure["structure position code"].passes, "the grid was found"
    assert len(fusion) == 8


def test_sizes_that_fit_nothing_are_told(golden, tmp_path):
    def change(arrays):
        arrays["prediction_every_97th"] = arrays["prediction_every_97th"][:-2]

    folder = copied(golden, tmp_path / "golden", "fusion_cases.npz", change)
    metadata = json.loads((golden / "config.json").read_text())
    with pytest.raises(ValueError, match="name fusion_rois and fusion_time_patches"):
        list(convert._check_fusion(folder, metadata))
