"""Cached tokens of the frozen encoders: the format of the cache, and reading it.

The cache of a cohort has the form of its shards: ``function-00003.tar`` holds the tokens of the BOLD runs of batch 3,
``structure-00003.tar`` those of their T1s (once, however many runs a subject has), each with a list beside it, and
``index.json`` the hashes. Only tokens of patches that hold data are stored, as bfloat16 in arrays of uint16, which is
what NumPy can write.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from bhx_model.config import FusionInputs
from bhx_model.data import shards
from bhx_model.data.batch import Batch, Draft
from bhx_model.data.memory import Memory
from bhx_model.data.shards import Index, Sample
from bhx_model.errors import DataError
from bhx_model.remote.urls import Place
from bhx_model.strict_fields import from_dict

TOKENS_VERSION: Final = 1
MEMBER: Final = "bf16.npy"
#: Bytes before the numbers of an array of two axes, as NumPy writes it; checked when it is read.
_NPY_HEADER: Final = 128
LIST_COLUMNS: Final = {
    "function": (
        "key", "anat", "subject", "tr_s", "n_frames", "n_tokens", "last_share", "absent",
        "offset", "size", "meta_offset", "meta_size",
    ),
    "structure": ("key", "subject", "n_tokens", "offset", "size", "meta_offset", "meta_size"),
}  # fmt: skip


def open_tokens(path: Place) -> Index:
    """Open the index of a cohort's cached tokens.

    Raises
    ------
    DataError
        If it is none of this version, or something it names is gone or altered.
    """
    return shards.open_token_index(path, _check)


def _check(metadata: Mapping[str, Any]) -> None:
    version = metadata.get("tokens")
    if version != TOKENS_VERSION:
        msg = f"an index of cached tokens of version {version}, expected {TOKENS_VERSION}: make the tokens again"
        raise DataError(msg)


def pairs(index: Index) -> list[tuple[Sample, Sample]]:
    """Function and structure tokens of every run, in the order of the runs.

    Raises
    ------
    DataError
        If the structure tokens of a run are missing.
    """
    found, alone = shards.pair(index.samples["function"], index.samples["structure"])
    if alone:
        msg = f"{index.path}: the tokens of the T1 of {alone[0].key} are missing: make the tokens again"
        raise DataError(msg)
    return found


def fusion_inputs(caches: Sequence[Index]) -> FusionInputs:
    """Sizes of the tokens, which must come from the same encoders in all caches.

    Raises
    ------
    DataError
        If they do not.
    """
    for cache in caches[1:]:
        if cache.metadata["encoders"] != caches[0].metadata["encoders"]:
            msg = (
                f"{cache.path} and {caches[0].path} are tokens of different encoders: make one of them again"
            )
            raise DataError(msg)
    return from_dict(FusionInputs, caches[0].metadata["inputs"], f"{caches[0].path}: inputs")


def read_pairs(chosen: Sequence[tuple[Sample, Sample]], n_rois: int) -> dict[str, Tensor]:
    """Tokens of pairs with equally many patches, stacked.

    Returns
    -------
    dict
        ``structure`` (B, S, D) bfloat16, ``function`` (B, R * N, D) bfloat16 and ``weight`` (B, R * N) float32, how
        much each function token counts.
    """
    return draft_pairs(chosen, n_rois, Memory()).read().tensors


def draft_pairs(chosen: Sequence[tuple[Sample, Sample]], n_rois: int, memory: Memory) -> Draft:
    """Begin to read what `read_pairs` gives."""
    tensors, fills = {}, []
    for name, samples in (("structure", [s for _, s in chosen]), ("function", [f for f, _ in chosen])):
        shape = (len(samples), samples[0].n_tokens, _width(samples[0]))
        numbers = memory.empty(shape, torch.uint16)
        fills += [
            functools.partial(shards.read_array_into, sample, place)
            for sample, place in zip(samples, numbers.numpy(), strict=True)
        ]
        tensors[name] = numbers.view(torch.bfloat16)
    tensors["weight"] = even_samples(torch.stack([weights(function, n_rois) for function, _ in chosen]))
    keys = [function.key for function, _ in chosen]
    return Draft(Batch(keys, tensors, n_patches=chosen[0][0].n_tokens // n_rois), fills)


def _width(sample: Sample) -> int:
    """Width of a token, from the size of a sample's array: two bytes per number, after NumPy's header."""
    return max((sample.size - _NPY_HEADER) // (2 * sample.n_tokens), 1)


def weights(sample: Sample, n_rois: int) -> Tensor:
    """How much each function token of a run counts, (R * N,): the share of its frames that hold data."""
    weight = torch.ones(n_rois, sample.n_tokens // n_rois)
    weight[:, -1] = sample.last_share
    weight[list(sample.absent)] = 0.0
    return weight.flatten()


def even_samples(weight_BF: Tensor) -> Tensor:
    """Scale weights so that those of every sample add up to its number of tokens.

    All samples then count the same in the loss, however a batch is cut into parts.
    """
    return weight_BF * (weight_BF.shape[1] / weight_BF.sum(dim=1, keepdim=True))
