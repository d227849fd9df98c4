"""Who is in a BIDS-shaped folder, and which files each person has: found by bids2table, told in our own terms."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bhx_prep import entities

# one chunk of people is listed at a time: 40,000 people with all their files would not fit into memory
_PEOPLE_PER_LISTING = 500
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
        self.entities = entities.parse(path.name)

    @property
    def grid(self) -> tuple[str | None, str | None]:
        """Space and resolution."""
        return self.entities.get("space"), self.entities.get("res")


def people(root: Path) -> tuple[list[str], list[str]]:
    """Labels of the subject folders, and those that are no labels (``sub-a b``)."""
    if not root.is_dir():
        return [], []
    with os.scandir(root) as entries:
        labels = sorted(
            e.name.removeprefix("sub-") for e in entries if e.name.startswith("sub-") and e.is_dir()
        )
    return [x for x in labels if SUBJECT.fullmatch(x)], [x for x in labels if not SUBJECT.fullmatch(x)]


def files_of_people(
    cohort: str, root: Path, labels: Sequence[str], suffixes: Sequence[str], endings: Sequence[str]
) -> Iterator[tuple[str, list[File]]]:
    """Each person's files with one of the suffixes and endings, sorted so that run 2 comes before run 10.

    bids2table is shown a folder with links to the people of one chunk. So it lists only those that are wanted, its
    memory is bounded, and it does not stumble over a root whose name holds dots or wildcards.

    Parameters
    ----------
    cohort : str
        For the lines of progress on stderr.
    root : Path
        Absolute.
    labels : sequence of str
        From `people`.
    suffixes, endings : sequences of str
        E.g. ``bold`` and ``.nii.gz``.

    Yields
    ------
    tuple of str and list of File
        Every label, in order, also where there is no file.
    """
    import bids2table

    logging.getLogger("bids2table").setLevel(logging.ERROR)  # odd names become rows with a reason
    told = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bhx-index-") as folder:
        for begin in range(0, len(labels), _PEOPLE_PER_LISTING):
            chunk = labels[begin : begin + _PEOPLE_PER_LISTING]
            view = Path(folder) / f"people{begin}"
            view.mkdir()
            for label in chunk:
                (view / f"sub-{label}").symlink_to(root / f"sub-{label}", target_is_directory=True)
            listed = bids2table.index_dataset(view).select(["suffix", "ext", "path"]).to_pydict()
            files: dict[str, list[File]] = defaultdict(list)
            for suffix, ending, path in zip(listed["suffix"], listed["ext"], listed["path"], strict=True):
                if suffix in suffixes and ending in endings:
                    files[path.split("/", 1)[0].removeprefix("sub-")].append(
                        File(root / path, suffix, ending)
                    )
            for done, label in enumerate(chunk, begin + 1):
                yield label, sorted(files.pop(label, []), key=lambda file: natural(str(file.path)))
                if time.monotonic() - told > 10:
                    told = time.monotonic()
                    print(f"index {cohort}: {done:,} of {len(labels):,} people", file=sys.stderr, flush=True)


def natural(text: str) -> list[tuple[int, str]]:
    """Sort key in which run 2 comes before run 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]
