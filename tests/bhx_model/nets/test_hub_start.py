"""Hub tokens start from tokens of their own places."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.hub_start import HubStart, windows


@pytest.mark.parametrize(("n", "places"), [(1, 7), (3, 7), (8, 400), (64, 400), (7, 7), (9, 7)])
def test_windows_tile_all_places_in_their_order(n, places):
    weights = windows(n, places).softmax(dim=1)
    centres = weights @ torch.arange(places, dtype=torch.float32)
    assert torch.all(centres.diff() > 0)
    reached = weights.sum(dim=0)  # no place is left out, none is read by all
    assert reached.min() > 0.05 * n / places
    assert reached.max() < 20 * n / places


def test_a_hub_token_starts_from_its_own_rois_and_from_its_own_places():
    start = HubStart(8, rois=40, structure_tokens=60)
    structure, function = torch.zeros(1, 60, 5), torch.zeros(1, 40 * 3, 5)
    function[:, 3 * 3 : 4 * 3] = 1.0  # the fourth ROI, at all times
    moved = start(structure, function).norm(dim=-1)[0]
    assert moved.argmax() == 0
    assert torch.all(moved[4:] == 0)
    function.zero_()
    structure[:, -1] = 1.0
    moved = start(structure, function).norm(dim=-1)[0]
    assert moved.argmax() == 7
    assert torch.all(moved[:4] == 0)


def test_the_order_of_time_patches_does_not_matter_to_the_start():
    start = HubStart(5, rois=6, structure_tokens=4)
    structure, function = torch.randn(2, 4, 3), torch.randn(2, 6, 3, 3)
    back = function.flip(dims=(2,))
    torch.testing.assert_close(start(structure, function.flatten(1, 2)), start(structure, back.flatten(1, 2)))


def test_one_hub_token_starts_from_function(fusion_inputs):
    start = HubStart(1, fusion_inputs.rois, fusion_inputs.structure_tokens)
    function = torch.randn(2, fusion_inputs.rois, 3)
    assert start(torch.randn(2, fusion_inputs.structure_tokens, 3), function).shape == (2, 1, 3)


def test_fusion_trains_the_start_and_reads_it_back(fusion_config, fusion_inputs):
    torch.manual_seed(0)
    model = FusionModel(dataclasses.replace(fusion_config, hub_start="places"), fusion_inputs)
    structure = torch.randn(2, fusion_inputs.structure_tokens, 16)
    function = torch.randn(2, fusion_inputs.rois * 2, 16)
    model(structure, function, 2)[0].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_hub_tokens_of_places_differ_where_learned_ones_are_alike(fusion_config, fusion_inputs):
    # two runs that differ in one ROI: of hub tokens that attend evenly all change alike
    torch.manual_seed(0)
    structure = torch.randn(1, fusion_inputs.structure_tokens, 16)
    one = torch.randn(1, fusion_inputs.rois * 2, 16)
    other = one.clone()
    other[:, :2] += 1.0

    def changes(hub_start: str) -> torch.Tensor:
        config = dataclasses.replace(fusion_config, hub_tokens=6, hub_start=hub_start)
        model = FusionModel(config, fusion_inputs)
        first, second = (model.encode(structure, x, 2, normed=False) for x in (one, other))
        return (second - first).norm(dim=-1)[0].detach()

    learned, places = changes("learned"), changes("places")
    assert learned.max() / learned.min() < 2
    assert places[0] / places.min() > 3
