"""Base class of the steps: a nipype interface on antspyx, since there is no ANTs command line.

All ANTs calls sample their metrics on a regular grid or everywhere and have a fixed seed: with one thread equal
inputs give equal transforms. World coordinates are RAS, mm; ITK's own files are LPS, and stay so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import ants
from nipype.interfaces.base import SimpleInterface

from bhx_model.errors import DataError, SiteError
from bhx_prep.preproc.disks import full_disk

#: Bytes that the disk has to have before a step begins: less than what any step of a real head writes.
ROOM: Final = 1 << 23
#: Longest part of a sentence that is quoted from ITK.
QUOTED: Final = 120

#: What ITK says of images that cannot be registered or made even. Anything else that it, ANTs or torch report is no fault
#: of an image that is known.
_UNFIT: Final = re.compile(
    r"map outside|Joint PDF summed to zero|Total Mass of the image was zero|physical space"
    r"|VirtualSampledPointSet must have 1 or more points|No valid points were found|[Dd]eterminant"
    r"|[Zz]ero-valued spacing|orthonormal"
)
_NO_MEMORY: Final = re.compile(
    r"[Ff]ailed to allocate memory|bad_alloc|can't allocate memory|Cannot allocate memory"
)


class Step(SimpleInterface):
    """A step whose errors are a `DataError` where ITK cannot use the images, a lack of memory or disk, or bugs."""

    def _run_interface(self, runtime: Any) -> Any:
        folder = Path(runtime.cwd)
        # ITK may end the whole process, without a word, where it cannot write
        if (full := full_disk([folder], ROOM)) is not None:
            raise SiteError(full)
        try:
            self._compute(folder)
        except RuntimeError as error:
            if type(error) is RuntimeError and (known := fault_of(str(error))) is not None:
                raise known from error
            raise
        return runtime

    def _compute(self, folder: Path) -> None:
        """Fill `_results`; files are written to `folder`."""
        raise NotImplementedError


def fault_of(words: str) -> DataError | MemoryError | None:
    """What ANTs, ITK or torch mean by an error, which they all report as a `RuntimeError`; None if it is not known.

    Parameters
    ----------
    words : str
        Of the error, or all that was printed: ITK's message is what follows ``ITK ERROR:``.
    """
    words = " ".join(words.split())
    if _NO_MEMORY.search(words):
        return MemoryError("ANTs or torch got no memory")
    if not _UNFIT.search(words):
        return None
    said = words.rpartition("ITK ERROR: ")[2]
    return DataError(f"ANTs: {said if len(said) <= QUOTED else said[: QUOTED - 3] + '...'}")


@contextmanager
def _printed_to(path: Path) -> Iterator[None]:
    """Redirect output of libraries, also that which bypasses Python's streams, to a file."""
    kept = os.dup(1), os.dup(2)
    try:
        with path.open("wb") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
            yield
    finally:
        for stream, was in zip((1, 2), kept, strict=True):
            os.dup2(was, stream)
            os.close(was)


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

    Raises
    ------
    RuntimeError
        With what was printed, which ends in ITK's message: antspyx itself gives no more than an exit code.
    """
    words = [
        "--dimensionality", "3", "--float", "1", "--random-seed", "1", "--collapse-output-transforms", "1",
        "--write-composite-transform", str(int(composite)), "--winsorize-image-intensities", "[0.005,0.995]",
        "--initial-moving-transform", start, *(word for stage in stages for word in stage),
        "--verbose", "1", "--output", str(prefix),
    ]  # fmt: skip
    printed = prefix.with_name(f"{prefix.name}_printed.txt")
    try:
        with _printed_to(printed):
            ants.registration(fixed=words, moving=None)
    except RuntimeError as error:
        raise RuntimeError(f"{error}: {printed.read_text(errors='replace')[-2000:]}") from error
