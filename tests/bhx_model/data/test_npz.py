"""Arrays of files, and the JSON among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bhx_model.data import npz
from bhx_model.errors import DataError


@pytest.mark.parametrize(
    ("text", "found"),
    [('{"a": [1]}', {"a": [1]}), ("[1]", {}), ("no JSON", {}), ("", {}), ("[" * 100_000, {})],
)
def test_the_object_of_a_text(text: str, found: dict):
    assert npz.object_of(np.array(text)) == found
    assert npz.object_of(None) == {}


def test_some_arrays_are_read_and_objects_never(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=np.arange(3), y=np.zeros(2))
    assert npz.read(tmp_path / "a.npz", "make it again", ["x", "z"]).keys() == {"x"}
    np.savez(tmp_path / "b.npz", x=np.array([{}]))
    with pytest.raises(
        DataError, match=r"b\.npz is no \.npz of plain arrays, or a broken one: make it again"
    ):
        npz.read(tmp_path / "b.npz", "make it again")
