"""What the steps share: a nipype interface on antspyx, since there is no ANTs command line.

All ANTs calls sample their metrics on a regular grid or everywhere and have a fixed seed: with one thread equal
inputs give equal transforms. World coordinates are RAS, mm; ITK's own files are LPS, and stay so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ants
from nipype.interfaces.base import SimpleInterface

from bhx_model.errors import DataError


class Step(SimpleInterface):
    """A step whose errors are a `DataError` where ANTs refuses the images, and bugs otherwise."""

    def _run_interface(self, runtime: Any) -> Any:
        try:
            self._compute(Path(runtime.cwd))
        except RuntimeError as error:
            if type(error) is not RuntimeError:
                raise
            # so ANTs and ITK report what they cannot do with an image, in many lines
            msg = f"ANTs: {' '.join(str(error).split())}"
            raise DataError(msg) from error
        return runtime

    def _compute(self, folder: Path) -> None:
        """Fill `_results`; files are written to `folder`."""
        raise NotImplementedError


def register(*stages: list[str], start: str, prefix: Path, composite: bool) -> None:
    """Register two images by ``antsRegistration``.

    Parameters
    ----------
    *stages : list of str
        Arguments of a stage each, coarse to fine.
    start : str
        Of ``--initial-moving-transform``.
    prefix : Path
        Of the transforms' files.
    composite : bool
        Write the stages as one file, and its inverse, in HDF5.
    """
    ants.registration(
        fixed=[
            "--dimensionality", "3", "--float", "1", "--random-seed", "1", "--collapse-output-transforms", "1",
            "--write-composite-transform", str(int(composite)), "--winsorize-image-intensities", "[0.005,0.995]",
            "--initial-moving-transform", start, *(word for stage in stages for word in stage),
            "--output", str(prefix),
        ],
        moving=None,
    )  # fmt: skip
