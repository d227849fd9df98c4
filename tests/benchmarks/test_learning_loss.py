"""The scale of the benchmark's JEPA loss, on toys whose answer is known."""

from __future__ import annotations

import math

import learning_loss
import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from bhx_model.config import load_preset
from bhx_model.data import masking
from bhx_model.data.rois import RoiMetadata
from bhx_model.nets.jepa import FunctionJEPA


def toy(noise: float):
    """Targets of 3 tokens in 4 channels, a linear map of 10 numbers and noise: what is read, and the targets."""
    random = np.random.default_rng(0)
    x = random.standard_normal((200, 10))
    y = x @ random.standard_normal((10, 12)) * (noise < 1) + noise * random.standard_normal((200, 12)) + 5
    return x, y.reshape(200, 3, 4)


def test_the_scale_is_not_clipped():
    assert learning_loss.on_scale(0.4, 0.4, 0.2) == 0
    assert learning_loss.on_scale(0.2, 0.4, 0.2) == pytest.approx(1)
    assert learning_loss.on_scale(0.1, 0.4, 0.2) == pytest.approx(1.5)
    assert learning_loss.on_scale(0.5, 0.4, 0.2) == pytest.approx(-0.5)
    assert math.isnan(learning_loss.on_scale(0.1, 0.2, 0.2))


def test_a_linear_map_is_found():
    x, y = toy(noise=0.0)
    weight = np.ones((200, 3))
    found, loss, penalty = learning_loss.kernel_ridge(x[:150], y[:150], weight[:150], x[150:])
    np.testing.assert_allclose(found, y[150:], atol=0.01)
    assert loss < 1e-4
    assert penalty == learning_loss.PENALTIES[0]


def test_of_noise_nothing_but_the_mean_is_found():
    x, y = toy(noise=2.0)
    weight = np.ones((200, 3))
    found, _, penalty = learning_loss.kernel_ridge(x[:150], y[:150], weight[:150], x[150:])
    by_mean = learning_loss.smooth_l1(y[:150].mean(axis=0), y[150:], weight[150:])
    assert learning_loss.smooth_l1(found, y[150:], weight[150:]) == pytest.approx(by_mean, rel=0.02)
    assert penalty > 0.1


def test_it_is_the_ridge_regression_with_an_intercept():
    x, y = toy(noise=0.5)
    x += 3
    weight = np.ones((200, 3))
    found, _, penalty = learning_loss.kernel_ridge(x[:150], y[:150], weight[:150], x[150:])
    length = ((x[:150] - x[:150].mean(axis=0)) ** 2).sum(axis=1).mean()
    peer = Ridge(alpha=penalty * length * 150).fit(x[:150], y[:150].reshape(150, -1))
    np.testing.assert_allclose(found.reshape(50, -1), peer.predict(x[150:]), rtol=1e-8)


def test_tokens_without_weight_do_not_count():
    _, y = toy(noise=0.5)
    weight = np.ones((200, 3))
    weight[:, 2] = 0
    spoilt = y.copy()
    spoilt[:, 2] += 100
    assert learning_loss.smooth_l1(spoilt, y, weight) == 0


def test_subjects_and_moments_are_distinguished():
    random = torch.Generator().manual_seed(0)
    lasting = torch.randn(200, 5, 1, 3, generator=random).expand(-1, -1, 4, -1)
    passing = torch.randn(200, 5, 4, 3, generator=random)
    place = 10 * torch.randn(1, 5, 4, 3, generator=random)
    assert learning_loss.subject_share(lasting) == pytest.approx((1, 1), abs=0.02)
    share, reliability = learning_loss.subject_share(passing)
    assert (share, reliability) == pytest.approx((1, 0), abs=0.05)
    assert learning_loss.subject_share(lasting + passing)[1] == pytest.approx(2 / 3, abs=0.05)
    assert learning_loss.subject_share(lasting + place)[0] < 0.05
    assert math.isnan(learning_loss.subject_share(passing[:, :, :1])[1])


@pytest.fixture
def model():
    """A model of 12 ROIs, untrained."""
    random = np.random.default_rng(0)
    rois = RoiMetadata(
        "toy", tuple(f"r{i}" for i in range(12)), np.zeros(12, np.int8), np.zeros((12, 0), np.float32),
        np.zeros((2, 0)), random.standard_normal((12, 4)).astype(np.float32), np.zeros(12, np.float32),
        np.ones(12, np.float32),
    )  # fmt: skip
    changes = {"model.harmonics": "none", "model.width": 16, "model.connectivity_code": 4}
    torch.manual_seed(0)
    return FunctionJEPA(load_preset("function", "tiny").override(changes).model, rois).eval()


def runs(seed: int, n: int) -> learning_loss.Runs:
    series = torch.randn(n, 12, 4 * 8, generator=torch.Generator().manual_seed(seed))
    series[:, :, -4:] = torch.nan  # half of the last patch
    return learning_loss.Runs([(part, 8) for part in series.split(5)], 4)


def test_the_models_loss_is_its_own(model):
    held_out = runs(1, 10)
    found = learning_loss.loss_scale(model, runs(0, 20), held_out)
    wanted = []
    for number in range(learning_loss.MASKS):
        masks = masking.jepa_masks(12, 4, model.config, 0, number, [0])
        for series, frames in held_out.batches:
            context, target = (
                torch.from_numpy(m).expand(len(series), -1) for m in (masks.context, masks.target)
            )
            wanted.append(model.sample_losses(*model.predict(series, frames, context, target)).mean().item())
    assert found.model == pytest.approx(np.mean(wanted), rel=1e-5)
    # tokens differ by place, so knowing the place is worth more than the mean token
    assert found.place < found.mean
    assert found.fitted_on == 20
