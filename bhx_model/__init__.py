"""BrainHarmonix: the model. Importing this package does not import torch.

``bhx_model.from_pretrained(folder)`` loads an exported model; see `bhx_model.release.embed`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bhx_model.extras import explain_failed_imports, how_to_install

if TYPE_CHECKING:
    from bhx_model.data.rois import RoiMetadata
    from bhx_model.release.embed import BrainHarmonix, from_pretrained

__version__ = "0.2.0"

__all__ = ["BrainHarmonix", "RoiMetadata", "__version__", "from_pretrained"]

_LAZY = {
    "BrainHarmonix": "bhx_model.release.embed",
    "from_pretrained": "bhx_model.release.embed",
    "RoiMetadata": "bhx_model.data.rois",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        msg = f"module 'bhx_model' has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        return getattr(importlib.import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if (sentence := how_to_install(error.name, ("model",))) is None:
            raise
        raise ModuleNotFoundError(sentence, name=error.name) from error


def __dir__() -> list[str]:
    return sorted(__all__)


explain_failed_imports()
