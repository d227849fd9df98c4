"""How well a patch kernel, resized to another repetition time, reproduces the output of the stored kernel.

    python tests/benchmarks/kernels.py

Band-limited random signals are sampled from one start at 48 frames of 0.735 s a patch and at k frames; the table holds
the mean cosine of the embeddings by random kernels, and in brackets the ratio of their lengths, before (`resize:
reference`, FlexiViT's rule) and after (`resize: aligned`, ours) frames are taken for what they are: moments, the first
of them at the patch's start. No part of the test suite.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bhx_model.data.augment import patch_frames
from bhx_model.nets.patch_embed import Resize, resize_matrix

TRS_S = (0.735, 0.8, 1.47, 1.6, 1.67, 2.0, 2.205, 2.4, 2.5, 2.94)
BANDS_HZ = ((0.01, 0.08), (0.01, 0.1), (0.01, 0.15))
WINDOW_S, BASE = 35.28, 48


def agreement(
    length: int, resize: Resize, band_hz: tuple[float, float], seed: int = 0
) -> tuple[float, float]:
    """Cosine and ratio of lengths of embeddings of `length` frames to those of the stored number, means over patches.

    Parameters
    ----------
    length
        Frames of a patch.
    resize
        Rule of the kernel.
    band_hz
        Lowest and highest frequency of the signals.
    seed
        Of signals and kernels.
    """
    rng = np.random.default_rng(seed)
    waves = (300, 40, 1)  # patches, sinusoids in each
    hz, phase, power = rng.uniform(*band_hz, waves), rng.uniform(0, 2 * np.pi, waves), rng.normal(size=waves)

    def sample(frames: int) -> np.ndarray:
        return (power * np.cos(2 * np.pi * hz * np.arange(frames) * WINDOW_S / frames + phase)).sum(axis=1)

    kernel = rng.normal(size=(128, BASE))
    found = sample(length) @ (kernel @ resize_matrix(BASE, length, resize).T).T
    wanted = sample(BASE) @ kernel.T
    lengths = np.linalg.norm(found, axis=1), np.linalg.norm(wanted, axis=1)
    cosine = (found * wanted).sum(axis=1) / lengths[0] / lengths[1]
    return float(cosine.mean()), float((lengths[0] / lengths[1]).mean())


def main() -> None:
    """Print the table, in Markdown."""
    bands = [f"{low:g}-{high:g} Hz, {rule}" for low, high in BANDS_HZ for rule in ("reference", "aligned")]
    print("| TR, s | k | " + " | ".join(bands) + " |")
    print("| ---: | ---: |" + " ---: |" * len(bands))
    for tr_s in TRS_S:
        k = patch_frames(tr_s)
        cells = []
        for band in BANDS_HZ:
            rules: tuple[Resize, Resize] = ("reference", "aligned")
            cells += ["{:.3f} ({:.2f})".format(*agreement(k, rule, band)) for rule in rules]
        print(f"| {tr_s:g} | {k} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
