"""Convert one series with dcm2niix: images with their sidecars, in a folder of their own."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nibabel as nib
from nibabel.spatialimages import HeaderDataError

from bhx_model.errors import DataError, SiteError
from bhx_prep.preproc.disks import full_disk

#: Fields of a NIfTI-1 header in which programs write texts: dcm2niix the time of the scan and comments typed there.
_TEXTS: Final = ("descrip", "aux_file", "intent_name", "db_name")


@dataclass(frozen=True)
class Image:
    """What dcm2niix made of a series, or of a part of it.

    Attributes
    ----------
    path : Path
        Uncompressed NIfTI.
    sidecar : dict
        As it was written; not to be shown.
    ending : str
        What dcm2niix has added to the name, e.g. ``_e2`` or ``_ph``.
    """

    path: Path
    sidecar: dict[str, Any]
    ending: str

    @property
    def echo(self) -> str:
        """Number of its echo; empty where dcm2niix names none."""
        found = re.search(r"_e(\d+)", self.ending)
        return found[1] if found else ""

    @property
    def phase(self) -> bool:
        """Whether it is a phase image, or a part of a complex one."""
        return re.search(r"_(?:ph|real|imaginary)(?![a-z])", self.ending) is not None

    @property
    def image_type(self) -> list[str]:
        """Values of ``ImageType``."""
        stated = self.sidecar.get("ImageType")
        return [str(value).upper() for value in stated] if isinstance(stated, list) else []


def program() -> str:
    """Path of dcm2niix: of the Python package, else the one that is found as a command.

    Raises
    ------
    SiteError
        If there is none.
    """
    if importlib.util.find_spec("dcm2niix") is not None:
        return str(importlib.import_module("dcm2niix").bin)
    if (found := shutil.which("dcm2niix")) is None:
        raise SiteError("dcm2niix is not installed: pip install 'bhx[dicom]', or apt-get install dcm2niix")
    return found


def convert(files: Iterable[Path], work: Path) -> list[Image]:
    """Convert the files of one series.

    Parameters
    ----------
    files : iterable of Path
        They are linked under numbers, so that no name of theirs can get out.
    work : Path
        An empty folder.

    Returns
    -------
    list of Image
        At least one.

    Raises
    ------
    DataError
        If dcm2niix makes nothing of them, or no JSON beside them.
    SiteError
        If it cannot be started, or the disk is full.
    """
    links, out = work / "dicom", work / "nifti"
    links.mkdir()
    out.mkdir()
    for number, file in enumerate(files, 1):
        (links / f"{number:06d}.dcm").symlink_to(file.absolute())
    words = [program(), "-b", "y", "-ba", "y", "-z", "n", "-f", "image", "-o", str(out), str(links)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise SiteError(f"dcm2niix cannot be started ({error.strerror}): pip install 'bhx[dicom]'") from error
    made = sorted(out.glob("*.nii"))
    if not made or done.returncode not in (0, 8):
        if (full := full_disk([out])) is not None:
            raise SiteError(full)
        raise DataError(
            f"dcm2niix makes no image of it (its exit code is {done.returncode}): {_cause(done.stdout)}"
        )
    return [
        Image(path, _sidecar(path.with_suffix(".json")), path.stem.removeprefix("image")) for path in made
    ]


def _sidecar(path: Path) -> dict[str, Any]:
    """The sidecar that dcm2niix wrote for an image; it copies texts of headers unchanged, in whatever encoding."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"), strict=False)
    except ValueError as error:
        if (full := full_disk([path.parent])) is not None:
            raise SiteError(full) from error
        raise DataError("dcm2niix wrote a sidecar that is no JSON: export the series again") from error


def _cause(printed: str) -> str:
    """dcm2niix's message on an error, without file names and values of headers."""
    lines = [line for line in printed.splitlines() if line.startswith("Error")]
    text = (
        re.sub(r"\S*[/\\]\S*|'[^']*'|\"[^\"]*\"", "..", lines[0].partition(":")[2].strip()) if lines else ""
    )
    return text[:80] or "check the export"


def compress(image: Path, out: Path) -> None:
    """Write a NIfTI as ``.nii.gz`` without the texts in its header and without extensions; same input, same bytes.

    Raises
    ------
    DataError
        If it is no NIfTI.
    SiteError
        If it ends before its values do.
    """
    try:
        with image.open("rb") as file:
            header = nib.Nifti1Header.from_fileobj(file)
            start, shape = int(header["vox_offset"]), header.get_data_shape()
    except (HeaderDataError, ValueError) as error:
        raise DataError("dcm2niix wrote an image that cannot be read: export the series again") from error
    size = int(header.get_data_dtype().itemsize)
    for length in shape:
        size *= int(length)
    if image.stat().st_size < start + size:
        raise SiteError(
            "dcm2niix wrote an image that ends early: free some space for it (TMPDIR), and start again"
        )
    for name in _TEXTS:
        header[name] = b""
    header.extensions.clear()
    header["vox_offset"] = 352
    with image.open("rb") as file, out.open("wb") as raw:
        file.seek(start)
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed:
            packed.write(header.binaryblock + b"\0\0\0\0")
            shutil.copyfileobj(file, packed, 1 << 20)
