"""Which subjects are in a BIDS-shaped folder, and which files each of them has. bids2table lists them."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from bhx_prep.io import bids_names

_T = TypeVar("_T")

#: Subjects per chunk.
CHUNK = 500
#: What a subject's label may be: the part of BIDS that bids2table and the sample keys agree on.
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
        return self.entities.get("space"), self.entities.get("res")


def subject_labels(root: Path) -> tuple[list[str], list[str]]:
    """Labels of the subject folders, and those that are no labels (``sub-a b``)."""
    if not root.is_dir():
        return [], []
    with os.scandir(root) as entries:
        labels = sorted(
            e.name.removeprefix("sub-") for e in entries if e.name.startswith("sub-") and e.is_dir()
        )
    return [x for x in labels if SUBJECT.fullmatch(x)], [x for x in labels if not SUBJECT.fullmatch(x)]


def chunks(labels: Sequence[_T]) -> list[Sequence[_T]]:
    """The subjects in parts that `files_of_subjects` may be asked for: 40,000 at once would not fit into memory."""
    return [labels[begin : begin + CHUNK] for begin in range(0, len(labels), CHUNK)]


def files_of_subjects(
    root: Path, labels: Sequence[str], suffixes: Sequence[str], endings: Sequence[str]
) -> Iterator[tuple[str, list[File]]]:
    """Each subject's files with one of the suffixes and endings, sorted so that run 2 comes before run 10.

    bids2table is given a folder with links to these subjects. So it lists only those that are wanted, and it does not
    fail at a root whose name holds dots or wildcards.

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
    import bids2table

    logging.getLogger("bids2table").setLevel(logging.ERROR)  # odd names become rows with a reason
    with tempfile.TemporaryDirectory(prefix="bhx-index-") as folder:
        view = Path(folder)
        for label in labels:
            (view / f"sub-{label}").symlink_to(root / f"sub-{label}", target_is_directory=True)
        listed = bids2table.index_dataset(view).select(["suffix", "ext", "path"]).to_pydict()
    files: dict[str, list[File]] = defaultdict(list)
    for suffix, ending, path in zip(listed["suffix"], listed["ext"], listed["path"], strict=True):
        if suffix in suffixes and ending in endings:
            files[path.split("/", 1)[0].removeprefix("sub-")].append(File(root / path, suffix, ending))
    for label in labels:
        yield label, sorted(files.pop(label, []), key=lambda file: natural(str(file.path)))


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key in which run 2 comes before run 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]
