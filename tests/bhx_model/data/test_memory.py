"""Memory that batches share."""

from __future__ import annotations

import gc

import torch

from bhx_model.data import memory
from bhx_model.data.memory import Memory


def test_a_piece_is_given_again_when_nothing_refers_to_it():
    lender = Memory()
    first = lender.empty((2, memory.SMALLEST), torch.int16)
    place = first.data_ptr()
    view = first[1].float().requires_grad_() * 2  # what autograd keeps counts, a copy does not
    kept = first[0]
    del first
    other = lender.empty((2, memory.SMALLEST), torch.int16)
    assert other.data_ptr() != place
    del kept
    gc.collect()
    again = lender.empty((memory.SMALLEST // 2, 2), torch.float32)
    assert again.data_ptr() == place
    assert again.shape == (memory.SMALLEST // 2, 2)
    assert view.requires_grad


def test_pieces_of_another_size_are_not_wasted_on_small_ones_nor_kept_for_ever():
    lender = Memory()
    sizes = [memory.SMALLEST * 3**n for n in range(4)]
    for size in sizes * 4:
        assert lender.empty((size,), torch.uint8).numel() == size
    assert len(lender._free) == len(sizes)
    held = [lender.empty((memory.SMALLEST,), torch.uint8) for _ in range(3 * memory.KEPT)]
    assert len({t.data_ptr() for t in held}) == len(held)
    del held
    assert len(lender._free) == memory.KEPT


def test_small_tensors_are_the_systems():
    lender = Memory()
    tensor = lender.empty((3, 2), torch.bfloat16)
    del tensor
    assert not lender._free
