import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bhx_model.nets.patch_embed import SeriesPatchEmbed, VolumePatchEmbed, _bicubic, resize_matrix

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from kernels import agreement  # the benchmark prints what is tested here

LENGTHS = (44, 24, 22, 21, 18, 16, 15, 14, 12)


@given(base=st.integers(4, 60), more=st.integers(1, 60), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_embedding_a_stretched_patch_with_the_resized_kernel_changes_nothing(base, more, seed):
    """FlexiViT's property: holds exactly upward, where resampling loses nothing."""
    rng = np.random.default_rng(seed)
    kernel, patch = rng.normal(size=(2, base))
    stretched = _bicubic(base, base + more) @ patch
    resized = resize_matrix(base, base + more, "reference") @ kernel
    assert resized @ stretched == pytest.approx(kernel @ patch, rel=1e-6, abs=1e-6)


@given(base=st.integers(4, 60), length=st.integers(3, 90))
@settings(max_examples=40)
def test_bicubic_resampling_is_torchs(base, length):
    torchs = torch.nn.functional.interpolate(
        torch.eye(base, dtype=torch.float64)[:, None, None], size=(1, length), mode="bicubic", antialias=True
    )
    np.testing.assert_allclose(_bicubic(base, length), torchs[:, 0, 0].T, atol=2e-5)


@pytest.mark.parametrize("length", [*LENGTHS, 71, 96])
@pytest.mark.parametrize(("highest_hz", "least"), [(0.08, 0.995), (0.1, 0.995), (0.15, 0.98)])
def test_aligned_kernels_see_the_same_at_every_rate(length, highest_hz, least):
    reference, _ = agreement(length, "reference", (0.01, highest_hz))
    aligned, gain = agreement(length, "aligned", (0.01, highest_hz))
    assert aligned > least
    assert aligned > reference
    assert gain == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("resize", ["aligned", "reference"])
def test_the_stored_length_is_left_alone(resize):
    embed = SeriesPatchEmbed(48, 5, resize)
    torch.testing.assert_close(embed.kernel(48), embed.weight, rtol=0, atol=0)


def test_matrices_are_cached_outside_the_state_and_dropped_on_a_move():
    embed = SeriesPatchEmbed(48, 5, "aligned")
    with torch.inference_mode():
        embed.kernel(18)
    embed.kernel(18).sum().backward()
    assert embed.weight.grad is not None
    assert len(embed._matrices) == 1
    assert set(embed.state_dict()) == {"weight", "bias"}
    embed.double()
    assert not embed._matrices
    assert embed.kernel(18).dtype == torch.float64
    assert copy.deepcopy(embed).kernel(18).shape == (5, 18)


def test_kernels_stay_exact_under_autocast():
    embed = SeriesPatchEmbed(48, 5, "aligned")
    exact = embed.kernel(18)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(embed.kernel(18), exact, rtol=0, atol=0)


@pytest.mark.parametrize(("grid", "patch"), [((8, 12, 4), 4), ((6, 3, 9), 3)])
def test_volume_patches_are_a_strided_convolution(grid, patch):
    embed = VolumePatchEmbed(grid, patch, 10)
    volume = torch.randn(2, *grid)
    kernel = embed.proj.weight.reshape(10, 1, patch, patch, patch)
    expected = torch.nn.functional.conv3d(volume[:, None], kernel, embed.proj.bias, stride=patch)
    torch.testing.assert_close(
        embed(embed.cut(volume)), expected.flatten(2).transpose(1, 2), rtol=1e-5, atol=1e-5
    )


def test_grids_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not divide into patches of 4"):
        VolumePatchEmbed((8, 10, 4), 4, 10)
    with pytest.raises(ValueError, match="the model's is"):
        VolumePatchEmbed((8, 8, 4), 4, 10).cut(torch.zeros(1, 8, 4, 8))
