"""What a checker of types has to see of the Python API; read by `make lint`, never run."""

from __future__ import annotations

from typing import assert_type

import numpy as np
import torch
from numpy.typing import NDArray

import bhx_model

model = bhx_model.from_pretrained("folder", stages=["function"], device="cpu")
assert_type(model, bhx_model.BrainHarmonix)
assert_type(model.embed(np.zeros((2, 3)), 2.0, ["a", "b"]), NDArray[np.float32])
assert_type(model.encode_series(torch.zeros(1, 2, 3), tr_s=2.0), torch.Tensor)
assert_type(model.roi_names, tuple[str, ...])
