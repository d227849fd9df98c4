"""Random numbers as a pure function of the seed and of what is drawn."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *what: str) -> np.random.Generator:
    """Random numbers for one draw of one subject: they do not change when subjects or draws are added."""
    return np.random.default_rng([seed, zlib.crc32("/".join(what).encode())])
