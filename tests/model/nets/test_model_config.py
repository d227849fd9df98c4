import argparse
import dataclasses

import pytest

from bhx_model.config import (
    PRESETS,
    STAGES,
    FunctionConfig,
    StructureConfig,
    TrainConfig,
    from_dict,
    json_object,
    load_preset,
    stage_from_dict,
)


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
                },
                "fusion": {
                    "loss_tokens",
                    "balance",
                    "cls_bypass",
                    "modality_embedding",
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
        ({"train.warmup_steps": 10**6}, "between 0 and train.steps"),
        ({"train.ema": None}, "give it there and only there"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        load_preset("function", "tiny").override(changes)


def test_unknown_stage_and_preset_are_named():
    with pytest.raises(ValueError, match="did you mean 'function'"):
        load_preset("functional", "tiny")
    with pytest.raises(ValueError, match="did you mean 'small'"):
        load_preset("function", "smal")


@pytest.mark.parametrize("text", ["[]", "{'a': 1}", "train.steps=3", ""])
def test_settings_that_are_no_json_object_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected names and values in JSON"):
        json_object(text)
    assert json_object('{"train.steps": 3}') == {"train.steps": 3}


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
