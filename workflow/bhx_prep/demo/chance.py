"""Where all randomness comes from: a pure function of the seed and of what is drawn."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *what: str) -> np.random.Generator:
    """Random numbers for one thing of one person: they do not change when people or things are added."""
    return np.random.default_rng([seed, zlib.crc32("/".join(what).encode())])
