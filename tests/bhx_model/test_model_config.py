import dataclasses
import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

from bhx_model import config
from bhx_model.config import (
    PRESETS,
    STAGES,
    EvaluationConfig,
    FunctionConfig,
    FusionInputs,
    StructureConfig,
    TrainConfig,
    load_preset,
    stage_from_dict,
)
from bhx_model.evaluation import __main__ as evaluate
from bhx_model.strict_fields import from_dict
from bhx_model.training import train


def test_every_file_is_a_preset_that_the_commands_take():
    files = {file.stem for file in Path(config.__file__).with_name("presets").iterdir()}
    assert set(PRESETS) == files >= {"tiny", "base", "reference"}
    for command in (train, evaluate):
        with pytest.raises(SystemExit), redirect_stdout(io.StringIO()) as text:
            command.main(["--help"])
        assert f"--preset {{{','.join(PRESETS)}}}" in text.getvalue()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("stage", STAGES)
def test_presets_survive_the_way_through_plain_values(stage, preset):
    config = load_preset(stage, preset)
    assert stage_from_dict(config.to_dict()) == config
    assert config.stage == stage


def test_base_is_the_papers_size():
    sizes = {stage: load_preset(stage, "base").model for stage in STAGES}
    assert {(m.width, m.depth, m.heads) for m in sizes.values()} == {(768, 12, 12)}
    assert sizes["fusion"].hub_tokens == 128
    assert sizes["function"].window_s == pytest.approx(35.28)


def test_a_preset_is_parsed_once_and_stays_as_it_is_written(monkeypatch):
    first = load_preset("function", "tiny")
    evaluation = config.preset_evaluation("tiny")
    written = dict(evaluation)
    evaluation["lr"] = "changed by a caller"
    monkeypatch.setattr(yaml, "safe_load", None)
    assert load_preset("function", "tiny") == first
    assert config.preset_evaluation("tiny") == written


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("preset", [p for p in PRESETS if p not in ("base", "reference")])
def test_other_presets_differ_from_base_in_sizes_only(preset, stage):
    base, other = (dataclasses.asdict(load_preset(stage, p).model) for p in ("base", preset))
    sizes = {"width", "depth", "heads", "hub_tokens", "checkpointing", "decoder"}
    sizes |= {f"{part}_{size}" for part in ("predictor", "decoder") for size in ("width", "depth", "heads")}
    assert {name for name in base if base[name] != other[name]} <= sizes


def test_reference_differs_from_base_in_the_named_switches_only():
    for stage in STAGES:
        base, reference = (dataclasses.asdict(load_preset(stage, p).model) for p in ("base", "reference"))
        differing = {name for name in base if base[name] != reference[name]}
        assert (
            differing
            == {
                "structure": set(),
                "function": {
                    "scaling",
                    "harmonics",
                    "position_scale",
                    "resize",
                    "partial_patch",
                    "downsampling",
                    "connectivity_code",
                    "connectivity_weight",
                    "whitening_weight",
                },
                "fusion": {
                    "loss_tokens",
                    "balance",
                    "cls_bypass",
                    "modality_embedding",
                    "hub_start",
                    "modality_attention",
                    "inputs",
                },
            }[stage]
        )


def test_overrides_reach_model_and_training():
    config = load_preset("function", "tiny").override({"train.steps": 10, "model.depth": 1, "train.lr": 1})
    assert (config.train.steps, config.model.depth, config.train.lr) == (10, 1, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.dept": 2}, "did you mean 'model.depth'"),
        ({"depth": 2}, "did you mean 'model.depth'"),
        ({"train.setps": 2}, "did you mean 'train.steps'"),
        ({"model.depth": "two"}, "expected int, got 'two'"),
        ({"model.depth": 2.0}, "expected int, got 2.0"),
        ({"model.depth": True}, "expected int, got True"),
        ({"train.lr": "1e-4"}, "write 1.0e-4"),
        ({"model.resize": "alined"}, "did you mean 'aligned'"),
        ({"model.mask_target_rois": [0.5, 0.2]}, "lower <= upper"),
        ({"train.betas": [0.9]}, "expected 2 values"),
        ({"model.heads": 3}, "not a multiple of heads 3"),
        ({"model.width": 6, "model.heads": 2}, "multiple of 4"),
        ({"train.steps": 0}, "steps is 0, it must be positive"),
        ({"train.accumulate": 3}, "equal parts"),
        ({"train.accumulate": 0}, "accumulate is 0, it must be positive"),
        ({"train.accumulate": "many"}, "expected int or 'auto', got 'many'"),
        ({"train.accumulate": None}, "expected int or 'auto', got None"),
        ({"model.depth": 10**30}, "model.depth is larger than 1000000000000000: give a smaller number"),
        ({"model.mlp_ratio": 1e308}, r"mlp_ratio 1e\+308 of width 64 is too much"),
        ({"train.warmup_steps": 10**6}, "between 0 and train.steps"),
        ({"train.ema": None}, "give it there and only there"),
        ({"train.ema": [0.9, 1.5]}, "a momentum lies between 0"),
        ({"train.ema": [1, 1.0]}, "never moves the target encoder"),
        (
            {"train.ema": [1, 0.5], "train.steps": 1, "train.warmup_steps": 0},
            "never moves the target encoder",
        ),
        ({"train.lr": float("nan")}, "train.lr is nan: give a number that is finite"),
        ({"model.max_tr_s": float("inf")}, "give a number that is finite"),
        ({"train.betas": [0.9, 1.0]}, r"betas is \(0.9, 1.0\): choose from \[0, 1\)"),
        ({"train.clip": 0.0}, "clip is 0.0, it must be positive"),
        ({"train.min_lr": -1.0}, "min_lr is -1.0, it must be 0 or more"),
        ({"train.lr": 1e300}, r"lr is 1e\+300, it must be 1e\+18 or less"),
        ({"train.weight_decay": 1e300}, r"weight_decay is 1e\+300, it must be 1e\+18 or less"),
        ({"train.weight_decay_end": -1.0}, "weight_decay_end is -1.0"),
        ({"model.mlp_ratio": 0.001}, "mlp_ratio 0.001 of width 64 is less than one"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        load_preset("function", "tiny").override(changes)


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ("structure", {"model.width": 5, "model.heads": 5}, "width is 5, it must be 6 or more"),
        ("structure", {"model.decoder_width": 4}, "decoder_width is 4"),
        ("fusion", {"model.width": 9, "model.heads": 3}, "fusion width is 9: positions need pairs"),
        ("fusion", {"model.decoder_width": 33, "model.decoder_heads": 3}, "decoder_width is 33"),
        ("fusion", {"model.drop_path": 1.0}, r"drop_path is 1.0: choose from \[0, 1\)"),
    ],
)
def test_widths_without_room_for_positions_are_named(stage, changes, message):
    with pytest.raises(ValueError, match=message):
        load_preset(stage, "tiny").override(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0}, {"batch_size": 0}, {"accumulate": 0}, {"accumulate": -1}, {"lr": 0.0}, {"lr": float("nan")},
        {"min_lr": -1.0}, {"warmup_epochs": -1},
        {"layer_decay": 0.0}, {"weight_decay": -1.0}, {"drop_path": 1.0}, {"label_smoothing": 2.0}, {"clip": 0.0},
    ],
)  # fmt: skip
def test_a_fine_tuning_that_cannot_train_is_refused(changes):
    ((name, value),) = changes.items()
    with pytest.raises(ValueError, match=rf"{name} is {value}"):
        from_dict(EvaluationConfig, changes, "--set")


def test_tokens_of_nothing_are_refused():
    sizes = {
        "structure_grid": [2, 3, 2],
        "structure_width": 8,
        "rois": 7,
        "time_patches": 5,
        "function_width": 8,
    }
    assert from_dict(FusionInputs, sizes, "inputs").structure_tokens == 12
    for name, value in (("rois", 0), ("time_patches", -1), ("structure_width", 0)):
        with pytest.raises(ValueError, match=f"{name} is {value}, it must be positive"):
            from_dict(FusionInputs, {**sizes, name: value}, "inputs")
    with pytest.raises(ValueError, match="structure_tokens is 0"):
        from_dict(FusionInputs, {**sizes, "structure_grid": [2, 0, 2]}, "inputs")


def test_a_number_that_no_float_holds_is_refused():
    with pytest.raises(ValueError, match="lr is inf: give a number that is finite"):
        from_dict(EvaluationConfig, {"lr": 10**400}, "--set")


def test_unknown_stage_and_preset_are_named():
    with pytest.raises(ValueError, match="did you mean 'function'"):
        load_preset("functional", "tiny")
    with pytest.raises(ValueError, match="did you mean 'small'"):
        load_preset("function", "smal")


def test_missing_fields_and_foreign_models_are_refused():
    with pytest.raises(ValueError, match="steps is missing"):
        from_dict(TrainConfig, {"batch_size": 1, "lr": 0.1}, "train")
    raw = load_preset("structure", "tiny").to_dict()
    with pytest.raises(ValueError, match="'patch' is unknown"):
        stage_from_dict({**raw, "stage": "function"})
    with pytest.raises(ValueError, match="has stage, model and train"):
        stage_from_dict({**raw, "extra": 1})


def test_structure_refuses_a_mask_of_everything():
    with pytest.raises(ValueError, match="between 0 and 1"):
        StructureConfig(mask_ratio=1.0)


def test_configurations_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FunctionConfig().width = 3  # type: ignore[misc]
