"""Settings of jobs as files, written when the study is planned, so that command lines do not grow with a cohort.

The name of a file carries the hash of its content. A job is given the path, and the path stands in its rule's `params`,
as a `str`, since Snakemake compares no `Path`: a change of a section is another path, and reruns what reads that section
and nothing else. A file never changes, so that
a job that waits in a queue reads what it was planned with, whatever has been edited since.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from bhx_model.atomic_write import atomic_write
from bhx_model.contract import canonical_json


class SettingsFolder:
    """Folder of the resolved settings of a study.

    Parameters
    ----------
    folder : Path
    write : bool
        Whether absent files are written: only by the main process, which plans.
    """

    def __init__(self, folder: Path, *, write: bool):
        self._folder, self._write = folder, write
        self._listed: dict[Path, set[str]] = {}

    def file(self, name: str, value: Any) -> Path:
        """Path of a JSON file with `value`.

        Parameters
        ----------
        name : str
            What it is, e.g. ``atlas`` or ``abide1/batch-00003``; the hash and the suffix are added.
        value : JSON value

        Returns
        -------
        Path
            The same for the same name and value.
        """
        content = canonical_json(value) + b"\n"
        path = self._folder / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}.json"
        if self._write:
            present = self._names(path.parent)
            if path.name not in present:
                with atomic_write(path) as part:
                    part.write_bytes(content)
                present.add(path.name)
        return path

    def _names(self, folder: Path) -> set[str]:
        """Names in a folder, listed once: a large cohort has a thousand of them, and network disks are slow."""
        if folder not in self._listed:
            self._listed[folder] = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
        return self._listed[folder]
