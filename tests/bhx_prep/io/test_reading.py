"""What a library says of a file becomes a reason; a file that is not there is not called damaged."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pytest

from bhx_model.errors import DataError
from bhx_prep.io.reading import reading


def test_a_file_that_is_not_there_is_not_damaged(tmp_path: Path):
    file = tmp_path / "bold.nii.gz"
    with pytest.raises(DataError, match=r"^there is no file bold\.nii\.gz"), reading(file):
        nib.load(file)
    file.write_bytes(b"not an image")
    with (
        pytest.raises(DataError, match=r"bold\.nii\.gz cannot be read, it is truncated or damaged"),
        reading(file),
    ):
        nib.load(file)


def test_a_machine_without_memory_is_no_file_s_fault(tmp_path: Path):
    with pytest.raises(OSError, match="memory"), reading(tmp_path / "bold.nii.gz"):
        raise OSError(12, "Cannot allocate memory")
