"""List the subjects of a BIDS folder, and the files of each."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from bhx_model.errors import ConfigError, format_error
from bhx_prep.io import bids_names
from bhx_prep.io.spaces import space_of

_T = TypeVar("_T")

#: Subjects per chunk.
CHUNK = 500
#: What a subject's label may be: the part of BIDS that the sample keys can hold.
SUBJECT: Final = re.compile(r"[A-Za-z0-9]+")


class File:
    """A listed file, its name taken apart.

    Parameters
    ----------
    path : Path
    suffix, ending : str
        ``bold`` and ``.nii.gz`` of ``sub-01_task-rest_bold.nii.gz``.
    """

    __slots__ = ("ending", "entities", "path", "suffix")

    def __init__(self, path: Path, suffix: str, ending: str):
        self.path, self.suffix, self.ending = path, suffix, ending
        self.entities = bids_names.parse(path.name)

    @property
    def grid(self) -> tuple[str | None, str | None]:
        """Space and resolution."""
        return space_of(self.entities), self.entities.get("res")


def subject_labels(root: Path) -> tuple[list[str], list[str]]:
    """Labels of the subject folders, and those that are no labels (``sub-a b``)."""
    if not root.is_dir():
        return [], []
    with os.scandir(root) as entries:
        labels = sorted(
            e.name.removeprefix("sub-") for e in entries if e.name.startswith("sub-") and is_folder(e)
        )
    return [x for x in labels if SUBJECT.fullmatch(x)], [x for x in labels if not SUBJECT.fullmatch(x)]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link to itself does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def chunks(labels: Sequence[_T]) -> list[Sequence[_T]]:
    """The subjects in parts that `files_of_subjects` may be asked for: 40,000 at once would not fit into memory."""
    return [labels[begin : begin + CHUNK] for begin in range(0, len(labels), CHUNK)]


def files_of_subjects(
    root: Path, labels: Sequence[str], suffixes: Sequence[str], endings: Sequence[str]
) -> Iterator[tuple[str, list[File]]]:
    """Each subject's files with one of the suffixes and endings, sorted so that run 2 comes before run 10.

    Parameters
    ----------
    root : Path
        Absolute.
    labels : sequence of str
        From `subject_labels`.
    suffixes, endings : sequences of str
        E.g. ``bold`` and ``.nii.gz``.

    Yields
    ------
    tuple of str and list of File
        Every label, in order, also where there is no file.
    """
    for label in labels:
        files: list[File] = []
        for path in files_below(f"{root}{os.sep}sub-{label}"):
            name = path.rpartition(os.sep)[2]
            stem, dot, ending = name.partition(".")
            suffix = stem.rpartition("_")[2]
            if suffix in suffixes and f"{dot}{ending}" in endings and name.startswith("sub-"):
                files.append(File(Path(path), suffix, f"{dot}{ending}"))
        yield label, sorted(files, key=lambda file: natural(str(file.path)))


def files_below(folder: str) -> Iterator[str]:
    """Paths of all files below a folder, in no order; linked folders are followed, but never in a circle.

    Hidden files and folders have none.

    Raises
    ------
    ConfigError
        If a folder may not be read: who is missing for that reason is not seen in the results.
    """
    folders: list[tuple[str, tuple[str, ...]]] = [(folder, ())]
    while folders:
        place, came_by = folders.pop()  # the second: real folders that links led out of
        for entry in _shown(place):
            if not is_folder(entry):
                yield entry.path
            elif not entry.is_symlink():
                folders.append((entry.path, came_by))
            else:
                line, target = (*came_by, os.path.realpath(place)), os.path.realpath(entry.path)
                if not any(f"{above}{os.sep}".startswith(f"{target}{os.sep}") for above in line):
                    folders.append((entry.path, line))


def _shown(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden; nothing where it is none.

    Raises
    ------
    ConfigError
        If it may not be read.
    """
    try:
        with os.scandir(folder) as listed:
            return [entry for entry in listed if not entry.name.startswith(".")]
    except PermissionError as error:
        raise ConfigError(format_error(error)) from error
    except OSError:  # not there, or moved meanwhile
        return []


def matching(root: Path, pattern: str) -> list[str]:
    """Paths below a root that match a glob pattern, relative to it; ``**`` is any folders, and follows no circle.

    What ``**`` finds is more than the pattern's: whatever lies below; the caller compares it with the pattern. Hidden
    files match no ``*``.

    Raises
    ------
    ConfigError
        If a folder may not be read.
    """
    before, deep, _ = pattern.partition("**")
    if not deep:
        return sorted(_glob(str(root), pattern.split("/")))
    base = before.rpartition("/")[0]
    places = _glob(str(root), base.split("/")) if base else ["."]
    found = (path for place in places for path in files_below(str(root / place)))
    return sorted(os.path.relpath(path, root) for path in found)


def _glob(folder: str, parts: Sequence[str]) -> Iterator[str]:
    """What ``glob.glob`` finds, which takes a folder that may not be read for an empty one."""
    part, *rest = parts
    if glob.has_magic(part):
        names = fnmatch.filter((entry.name for entry in _shown(folder)), part)
    else:
        names = [part] if os.path.lexists(f"{folder}{os.sep}{part}") else []
    for name in names:
        if rest:
            yield from (f"{name}/{below}" for below in _glob(f"{folder}{os.sep}{name}", rest))
        else:
            yield name


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key in which run 2 comes before run 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]
