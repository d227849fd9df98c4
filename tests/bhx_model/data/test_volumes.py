"""T1 volumes as they are stored: a bfloat16 within bfloat16's rounding of 1 to 2 sd, in a third of float16's bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bhx_model.data import volumes
from bhx_model.data.batch import add_up

FLOATS = st.floats(-254, 254, width=32)
VOLUMES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=FLOATS)


@given(VOLUMES)
def test_what_is_stored_is_a_bfloat16_and_from_one_sd_on_that_of_pytorch(volume):
    stored = volumes.to_float32(volumes.decode(volumes.encode(volume)))
    tensor = torch.from_numpy(stored)
    assert torch.equal(tensor.bfloat16().float(), tensor)
    large = np.abs(volume) >= 1
    np.testing.assert_array_equal(stored[large], torch.from_numpy(volume).bfloat16().float().numpy()[large])
    assert np.abs(stored - volume)[~large].max(initial=0) <= 1 / 256


def brain() -> np.ndarray:
    """A brain as large as ours in its box, its values smooth with noise of 0.15 sd."""
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, 64)] * 3, indexing="ij"))
    inside = (at**2).sum(0) < 0.72
    noise = np.random.default_rng(0).normal(size=inside.shape)
    return np.where(inside, np.sin(9 * at).sum(0) / 1.2 + 0.15 * noise, 0).astype(np.float32)


def test_equal_volumes_give_equal_bytes_a_quarter_of_float16():
    content = volumes.encode(brain())
    assert volumes.encode(np.asfortranarray(brain())) == content
    assert len(content) < brain().astype(np.float16).nbytes / 4


def test_rounding_is_little_more_than_that_of_bfloat16():
    def error(stored):
        return float(np.sqrt(np.mean((stored - brain())[brain() != 0] ** 2)))

    ours = error(volumes.to_float32(volumes.decode(volumes.encode(brain()))))
    assert ours < 1.6 * error(torch.from_numpy(brain()).bfloat16().float().numpy()) < 0.005


def test_what_the_first_layer_makes_of_it_in_bfloat16_is_hardly_less_exact():
    """Embedded patches, from those in float32: bfloat16 takes them away so far, the stored volume little farther."""
    from bhx_model.nets.patch_embed import VolumePatchEmbed

    torch.manual_seed(0)
    embed = VolumePatchEmbed((64, 64, 64), 16, 96)
    exact = torch.from_numpy(brain())[None]
    stored = torch.from_numpy(volumes.to_float32(volumes.decode(volumes.encode(brain()))))[None]
    with torch.no_grad():
        truth = embed(embed.cut(exact))
        with torch.autocast("cpu", torch.bfloat16):
            far = [
                (embed(embed.cut(v)).float() - truth).square().mean().sqrt().item() for v in (exact, stored)
            ]
    assert far[1] < 1.3 * far[0] < 0.003


def test_a_volume_is_decoded_into_its_place():
    batch = np.full((2, *brain().shape), 7, np.int16)
    for place in batch:
        volumes.decode(volumes.encode(brain()), place)
    np.testing.assert_array_equal(batch[1], volumes.decode(volumes.encode(brain())))
    np.testing.assert_array_equal(batch[0], batch[1])
    with pytest.raises(ValueError, match=r"expected \(3, 3, 3\): all cohorts need one features.t1w_shape"):
        volumes.decode(volumes.encode(brain()), np.empty((3, 3, 3), np.int16))


def test_an_empty_volume_survives():
    stored = volumes.decode(volumes.encode(np.zeros((5, 4, 3), np.float32)))
    assert stored.shape == (5, 4, 3)
    assert not stored.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 256.0])
def test_what_is_no_number_or_no_intensity_is_refused(value):
    volume = np.ones((3, 3, 3), np.float32)
    volume[1, 2, 0] = value
    with pytest.raises(ValueError, match="no numbers or lie beyond 255 sd"):
        volumes.encode(volume)


def test_series_of_volumes_are_refused():
    with pytest.raises(ValueError, match="has three axes, this one is 3 x 3 x 3 x 2"):
        volumes.encode(np.ones((3, 3, 3, 2), np.float32))


def header(*changes: tuple[int, int]):
    """Damage to the words of a header."""

    def damage(content: bytes) -> bytes:
        words = np.frombuffer(content[:16], "<u2").copy()
        for place, value in changes:
            words[place] = value
        return words.tobytes() + content[16:]

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:10],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + content[16:],
        lambda content: b"no header of a volume nor frames of Blosc at all, though long enough",
        lambda content: content[:20] + b"\xff\xff\xff\x7f" + content[24:],
        lambda content: content[:60] + bytes(40) + content[100:],
        header((0, 0)),
        header((3, 60)),
        header((6, 30)),
        header((7, 0)),
        header((7, 9)),
        header((0, 65535), (1, 65535), (2, 65535)),
    ],
)
def test_what_is_no_stored_volume_is_refused(damage):
    with pytest.raises(ValueError, match="no stored T1 volume"):
        volumes.decode(damage(volumes.encode(brain())))


def differences(content: bytes, shape: tuple[int, ...]) -> tuple[torch.Tensor, volumes.Box]:
    """What is read of a stored volume for a GPU, the rest of its memory full of something else."""
    out = np.full(int(np.prod(shape)), 12345, np.uint16)
    box = volumes.decompress(np.frombuffer(content, np.uint8), shape, out)
    return torch.from_numpy(out.view(np.int16)), box


@given(st.lists(VOLUMES, min_size=1, max_size=3))
def test_differences_add_up_to_what_is_decoded(drawn):
    shape = tuple(max(v.shape[axis] for v in drawn) for axis in range(3))
    padded = [np.pad(v, [(0, n - m) for n, m in zip(shape, v.shape, strict=True)]) for v in drawn]
    contents = [volumes.encode(v) for v in padded]
    read = [differences(content, shape) for content in contents]
    found = add_up(torch.stack([steps for steps, _ in read]), [box for _, box in read], shape)
    np.testing.assert_array_equal(found.numpy(), np.stack([volumes.decode(content) for content in contents]))


def test_differences_add_up_over_many_planes():
    """Biases beyond 16 bits wrap around, as the differences do."""
    random = np.random.default_rng(0)
    volume = np.where(random.random((700, 9, 4)) < 0.8, random.uniform(-254, 254, (700, 9, 4)), 0)
    content = volumes.encode(volume.astype(np.float32))
    steps, box = differences(content, volume.shape)
    np.testing.assert_array_equal(
        add_up(steps[None], [box], volume.shape)[0].numpy(), volumes.decode(content)
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:10],
        lambda content: content[:-3],
        lambda content: content + b"more",
        lambda content: content[:16] + bytes(len(content) - 16),
        lambda content: bytes(16) + content[16:],
        lambda content: np.array([3, 3, 3], "<u2").tobytes() + content[6:],
    ],
)
def test_what_is_damaged_is_refused_alike_for_a_gpu(change):
    content = change(volumes.encode(brain()))
    with pytest.raises(ValueError, match=r"T1 volume|all cohorts need one") as ours:
        differences(content, brain().shape)
    with pytest.raises(ValueError, match=r"T1 volume|all cohorts need one") as theirs:
        volumes.decode(content, np.empty(brain().shape, np.int16))
    assert str(ours.value) == str(theirs.value)
