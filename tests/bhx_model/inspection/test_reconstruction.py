"""Reconstructions of T1 volumes: means over subjects, nobody's own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bhx_model.inspection.reconstruction import reconstruct
from bhx_model.nets.mae import StructureMAE


@pytest.fixture
def model(structure_config):
    return StructureMAE(structure_config, (8, 12, 8)).eval().requires_grad_(False)


def test_pictures_are_means_and_hidden_patches_are_blank(model):
    volumes = torch.randn(5, 8, 12, 8)
    found = reconstruct(model, [volumes[:2], volumes[2:]])
    assert found.n == 5
    assert [p.shape for p in found.original] == [(12, 8), (8, 8), (8, 12)]
    mean = volumes.mean(dim=0).numpy()
    np.testing.assert_allclose(found.original[0], mean[4], atol=2e-3)
    np.testing.assert_allclose(found.original[2], mean[:, :, 4], atol=2e-3)
    for original, masked, filled in zip(found.original, found.masked, found.filled, strict=True):
        seen = np.isfinite(masked)
        np.testing.assert_array_equal(masked[seen], original[seen])
        np.testing.assert_array_equal(filled[seen], original[seen])
    assert not all(np.isfinite(m).all() for m in found.masked)
    assert all(np.isfinite(f).all() for f in found.filled)


def test_the_correlation_is_that_with_the_subjects_own_voxels(model, monkeypatch):
    """A decoder that says the hidden voxels themselves has 1, one that says the same of all has 0."""
    volumes = torch.randn(4, 8, 12, 8)
    assert abs(reconstruct(model, [volumes]).correlation) < 0.5
    from bhx_model.inspection import reconstruction

    fill = reconstruction._fill

    def perfect(model, volume, visible):
        patches, _ = fill(model, volume, visible)
        hidden = reconstruction.complement(visible, model.n_tokens)
        return patches, reconstruction.gather_tokens(patches, hidden)

    monkeypatch.setattr(reconstruction, "_fill", perfect)
    assert reconstruct(model, [volumes]).correlation == pytest.approx(1)

    def constant(model, volume, visible):
        patches, filled = fill(model, volume, visible)
        return patches, torch.ones_like(filled)

    monkeypatch.setattr(reconstruction, "_fill", constant)
    assert reconstruct(model, [volumes]).correlation == 0


def test_patches_that_were_standardised_get_their_scale_back(structure_config):
    for norm in (True, False):
        model = StructureMAE(dataclasses.replace(structure_config, norm_pix_loss=norm), (8, 12, 8)).eval()
        with torch.no_grad():
            model.decoder_pred.weight.zero_()
            model.decoder_pred.bias.zero_()
            found = reconstruct(model, [100 + torch.randn(3, 8, 12, 8)])
        hidden = ~np.isfinite(found.masked[0])
        assert np.abs(found.filled[0][hidden] - (100 if norm else 0)).max() < 2


def test_one_subject_makes_no_mean(model):
    with pytest.raises(ValueError, match="two at least"):
        reconstruct(model, [torch.randn(1, 8, 12, 8)])
