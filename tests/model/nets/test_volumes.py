"""T1 volumes as they are stored: bfloat16, bit for bit, compressed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bhx_model import volumes

FLOATS = st.floats(-(2.0**127), 2.0**127, width=32)
VOLUMES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=FLOATS)


@given(VOLUMES)
def test_what_is_stored_is_the_bfloat16_of_pytorch(volume):
    bits = volumes.decode(volumes.encode(volume))
    expected = torch.from_numpy(volume).bfloat16()
    assert torch.equal(torch.from_numpy(bits).view(torch.bfloat16), expected)
    np.testing.assert_array_equal(volumes.to_float32(bits), expected.float().numpy())


def brain() -> np.ndarray:
    """Drawn intensities in a ball."""
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, 48)] * 3, indexing="ij"))
    inside = (at**2).sum(0) < 0.72
    return np.where(inside, np.random.default_rng(0).normal(size=inside.shape), 0).astype(np.float32)


def test_equal_volumes_give_equal_bytes_a_third_of_float16():
    content = volumes.encode(brain())
    assert volumes.encode(np.asfortranarray(brain())) == content
    assert len(content) < brain().astype(np.float16).nbytes / 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38])
def test_what_is_no_number_in_bfloat16_is_refused(value):
    volume = np.ones((3, 3, 3), np.float32)
    volume[1, 2, 0] = value
    with pytest.raises(ValueError, match="no numbers"):
        volumes.encode(volume)


def test_series_of_volumes_are_refused():
    with pytest.raises(ValueError, match="has three axes, this one is 3 x 3 x 3 x 2"):
        volumes.encode(np.ones((3, 3, 3, 2), np.float32))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:10],
        lambda content: content[: len(content) // 2],
        lambda content: b"no frame of Blosc at all, though long enough",
        lambda content: content[:4] + b"\xff\xff\xff\x7f" + content[8:],
        lambda content: volumes._CODEC.encode(np.zeros(400, np.uint16)),
    ],
    ids=["empty", "header only", "half", "text", "a length of 2 GB", "no .npy inside"],
)
def test_what_is_no_stored_volume_is_refused(damage):
    with pytest.raises(ValueError, match="no stored T1 volume"):
        volumes.decode(damage(volumes.encode(brain())))


def test_an_array_of_another_kind_is_refused():
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 4, 4), np.float32))
    with pytest.raises(ValueError, match="float32 with 3 axes"):
        volumes.decode(volumes._CODEC.encode(np.frombuffer(buffer.getbuffer(), np.uint8)))
