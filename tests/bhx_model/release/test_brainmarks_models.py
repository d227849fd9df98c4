"""The plug-in for Brainmarks: its shapes and gradients, what it undoes, whom it refuses.

Brainmarks is in no test environment (1.6 GB with what it needs): where it is absent, the two small modules of it that the
plug-in imports are stand-ins.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch

from bhx_model.compat.released import to_17_networks
from bhx_model.data.t1w import ModelGrid
from bhx_model.data.t1w_space import space_of
from bhx_model.errors import ConfigError, DataError


class StandInEmbeddings(NamedTuple):
    cls_embeds: torch.Tensor | None
    reg_embeds: torch.Tensor | None
    patch_embeds: torch.Tensor | None


@pytest.fixture
def plugin(monkeypatch):
    # an editable install of BHX has the plug-in's namespace, and no Brainmarks
    if find_spec("brainmarks") is None or find_spec("brainmarks.models.base") is None:
        modules = {name: ModuleType(name) for name in
                   ("brainmarks", "brainmarks.models", "brainmarks.models.base", "brainmarks.models.registry")}  # fmt: skip
        modules["brainmarks.models.base"].Embeddings = StandInEmbeddings
        modules["brainmarks.models.registry"].register_model = lambda function: function
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("BHX_WEIGHTS", raising=False)
    monkeypatch.delitem(sys.modules, "bhx_model.release.brainmarks_models", raising=False)
    return importlib.import_module("bhx_model.release.brainmarks_models")


def sample_of(series_RT: np.ndarray, tr_s: float = 2.0) -> dict:
    """A run as Brainmarks gives it: every ROI divided by its own deviation."""
    series = torch.from_numpy(np.asarray(series_RT, np.float32).T)
    mean, std = series.mean(0, keepdim=True), series.std(0, keepdim=True)
    return {"bold": (series - mean) / std, "mean": mean, "std": std, "tr": tr_s, "target": 1}


def batch_of(transform, samples: list[dict]) -> dict:
    return torch.utils.data.default_collate([transform(sample) for sample in samples])


@pytest.mark.parametrize("frames", [16, 160])
def test_without_weights_it_passes_what_their_test_asks(plugin, frames, caplog):
    transform, backbone = plugin.bhx()
    assert "scores mean nothing" in caplog.text
    series = np.random.default_rng(0).standard_normal((2, 400, frames))
    cls, reg, patch = backbone(batch_of(transform, [sample_of(one, 1.0) for one in series]))
    assert cls is reg is None
    assert patch.shape[0] == 2
    assert patch.shape[1] % 400 == 0
    assert patch.isfinite().all()


def test_hub_tokens_have_the_template_for_everybody_and_gradients_reach_the_weights(plugin, model, subject):
    mine = copy.deepcopy(model)
    series, tr_s, volume = subject
    grid = ModelGrid(volume.shape, np.diag([2.0, 2, 2, 1]))
    mine.t1w_space = space_of(grid, "MNI152NLin2009cAsym", volume, min_dice=0.5, min_correlation=0.5)
    assert np.corrcoef(mine.t1w_space.template_volume().ravel(), volume.ravel())[0, 1] > 0.5
    transform, backbone = plugin.BackboneTransform(mine), plugin.Backbone(mine)
    batch = batch_of(transform, [sample_of(series, tr_s), sample_of(series[:, ::-1].copy(), tr_s)])
    torch.testing.assert_close(batch["series"][0], torch.from_numpy(series), rtol=1e-4, atol=1e-3)
    _, reg, patch = backbone(batch)
    expected = mine.encode_series(batch["series"], tr_s)
    torch.testing.assert_close(patch, expected.flatten(1, 2))
    assert reg.shape[:2] == (2, mine.fusion.config.hub_tokens)
    assert not torch.equal(reg[0], reg[1])
    reg.sum().backward()
    reached = {
        name.split(".")[0] for name, p in mine.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert reached == {"function", "structure", "fusion"}


def test_a_parcel_that_never_changes_counts_as_absent(plugin, model, subject):
    series, tr_s, _ = subject
    sample = sample_of(series, tr_s)
    sample["bold"][:, 4], sample["std"][:, 4] = 0, 1e-6  # of zeros
    found = plugin.BackboneTransform(model)(sample)["series"]
    assert found[4].isnan().all()
    assert found[:4].isfinite().all()


def test_runs_of_two_repetition_times_are_no_batch(plugin, model, subject):
    transform, backbone = plugin.BackboneTransform(model), plugin.Backbone(model)
    series, _, _ = subject
    with pytest.raises(DataError, match="2 repetition times: set batch_size=1"):
        backbone(batch_of(transform, [sample_of(series, 2.0), sample_of(series, 2.5)]))


def test_units_of_a_population_are_mapped_onto_those_of_the_weights(plugin, model, subject):
    mine = copy.deepcopy(model)
    mine.function.config = dataclasses.replace(mine.function.config, scaling="population")
    transform = plugin.BackboneTransform(mine)
    series, tr_s, _ = subject
    runs = [sample_of(500 + 3 * series * gain, tr_s) for gain in (0.9, 1.0, 1.1)]
    transform.fit(runs)
    found = transform(runs[1])["series"].numpy()
    low, centre, high = np.quantile(found, [0.25, 0.5, 0.75], axis=1)
    np.testing.assert_allclose(centre, mine.rois.median, atol=0.2 * mine.rois.iqr.max())
    np.testing.assert_allclose(high - low, mine.rois.iqr, rtol=0.05)


def test_weights_of_other_rois_are_refused(plugin, exported):
    with pytest.raises(ConfigError, match="400 parcels in 17-network order, the weights are of 20 ROIs from"):
        plugin.bhx(str(exported))


def test_harmonics_in_7_network_order_are_brought_into_that_of_17(shared):
    to_17 = np.loadtxt(shared("data/atlas/schaefer400_7n_to_17n_index.txt"), np.int64) - 1
    rows = np.arange(400.0)[:, None]
    np.testing.assert_array_equal(to_17[to_17_networks(rows)[:, 0].astype(int)], np.arange(400))
    with pytest.raises(DataError, match="the harmonics have 20 rows"):
        to_17_networks(rows[:20])
