"""The page of presets explains every key, and has every preset's value."""

from __future__ import annotations

import pytest

from bhx_model import config
from bhx_prep.config import presets_page

CLASSES = (*config.MODELS.values(), config.TrainConfig, config.EvaluationConfig)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_key_is_explained(cls: type):
    meanings = presets_page.meanings(cls)
    assert list(meanings) == list(cls.__dataclass_fields__)
    assert [key for key, meaning in meanings.items() if not meaning] == []


def test_values_are_those_of_the_presets():
    page = presets_page.page()
    (row,) = [line for line in page.splitlines() if line.startswith("| `model.hub_tokens` |")]
    asked = [config.load_preset("fusion", name).to_dict()["model"]["hub_tokens"] for name in config.PRESETS]
    assert [cell.strip() for cell in row.split("|")[2 : 2 + len(asked)]] == [str(n) for n in asked]
    assert " | ".join(f"`{name}`" for name in config.PRESETS) in page
