"""What the Snakefile asks about one cohort: its subjects, batches, files and modalities, from the index."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from bhx_model.errors import BhxError, format_error
from bhx_model.evaluation.methods import Method
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.config import Config
from bhx_prep.config.resolved import SettingsFolder
from bhx_prep.ingest import batches, index
from bhx_prep.io import bids_names
from bhx_prep.review import decided
from bhx_prep.review.decided import Place
from bhx_prep.review.decisions import Decision, mistaken

#: Columns of the index that jobs depend on and that no file name contains.
FIELDS = ("tr_s", "n_frames", "anat", "synthetic", "reason")


@contextmanager
def settings_are_written() -> Iterator[None]:
    """Stop with a sentence where the settings of jobs cannot be written."""
    try:
        yield
    except OSError as error:  # from within Snakemake an exception would show as a traceback
        raise SystemExit(f"the settings of jobs cannot be written: {format_error(error)}") from None


class CohortPlan:
    """One cohort's index, split into the batches that jobs work on.

    Parameters
    ----------
    name : str
        Of the cohort.
    cohort : CohortSection
        Its section of the configuration.
    config : Config
        All of it.
    cache : Path
        Folder of the parse-time cache.
    build : bool
        Whether to (re)build a stale cache; only the main process may.
    decisions : sequence of Decision
        What people decided of its scans.
    """

    def __init__(
        self,
        name: str,
        cohort: CohortSection,
        config: Config,
        cache: Path,
        *,
        build: bool,
        decisions: Sequence[Decision] = (),
    ):
        self.name, self.cohort, self._config, self._cache, self._build = name, cohort, config, cache, build
        self._decisions = decisions
        self._settings = SettingsFolder(config.results / "settings", write=build)

    @property
    def index_file(self) -> Path:
        """The cached index, made first where it is absent or old."""
        _ = self._columns
        return self._cache / f"{self.name}.parquet"

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        """The columns of the index that planning needs; every job reads them, also for a cohort of 100,000 subjects."""
        try:
            table = index.load(
                self._cache,
                self.name,
                self.cohort,
                build_if_stale=self._build,
                t1w_mm=self._config.features.t1w_resolution_mm,
            )
        except (BhxError, OSError) as error:  # from within Snakemake an exception would show as a traceback
            raise SystemExit(format_error(error)) from None
        names = ("subject", "modality", "key", "status", *index.FILE_COLUMNS, *FIELDS)
        return {name: table[name].to_numpy().tolist() for name in names}

    @cached_property
    def _rows(self) -> dict[str, range]:
        """Rows of every subject, ordered by label; they are contiguous in the index."""
        subjects = self._columns["subject"]
        starts = [row for row, subject in enumerate(subjects) if row == 0 or subject != subjects[row - 1]]
        return {subjects[a]: range(a, b) for a, b in pairwise([*starts, len(subjects)])}

    @cached_property
    def _batches(self) -> dict[int, list[str]]:
        n_subjects = len(self._rows)
        try:
            n = batches.n_batches(self._config.results, self.name, n_subjects, self._config.batch_size)
        except (BhxError, OSError) as error:
            msg = f"cohort {self.name}: its plan cannot be read or written: {format_error(error)}"
            raise SystemExit(msg) from None
        planned = batches.batches(self.name, self._rows, n)
        with settings_are_written():
            for number, subjects in planned.items():  # now, in the main process: jobs only read
                self._settings.file(self._list_name(number), subjects)
        return planned

    def _list_name(self, number: int) -> str:
        return f"{self.name}/batch-{number:05d}"

    def subjects_file(self, batch: str) -> Path:
        """JSON list of the subjects of a batch."""
        return self._settings.file(self._list_name(int(batch)), self._batches[int(batch)])

    @cached_property
    def _decided(self) -> dict[Place, Decision]:
        """What was decided of which scan."""
        if not self._decisions:
            return {}
        _ = self._columns  # the index has to be there
        table = index.load(
            self._cache,
            self.name,
            self.cohort,
            build_if_stale=False,
            t1w_mm=self._config.features.t1w_resolution_mm,
        )
        found, mistakes = decided.find(self._decisions, table.select(decided.NAMING).to_pylist())
        if mistakes:
            raise SystemExit(str(mistaken(self._config.qc_decisions, mistakes)))
        return dict(sorted(found.items()))

    def decisions_file(self, batch: str) -> Path:
        """JSON list of the decisions on scans of a batch: neither who decided nor when, which change no result."""
        members = set(self._batches[int(batch)])
        rows = [
            {"modality": modality, "key": key, "decision": one.decision, "why": one.reason}
            for (modality, key), one in self._decided.items()
            if one.subject in members
        ]
        return self._decisions_file(f"decisions-{int(batch):05d}", rows)

    def all_decisions_file(self) -> Path:
        """JSON list of all decisions on scans of the cohort, with who decided, and when."""
        rows = [
            {"modality": modality, "key": key}
            | {name: getattr(one, name) for name in ("decision", "who", "when", "why")}
            for (modality, key), one in self._decided.items()
        ]
        return self._decisions_file("decisions", rows)

    def kept(self, subject: str, status: Path) -> list[str]:
        """File names of the raw scans that the embedded preprocessing is to keep, whatever limits of its they fail.

        Parameters
        ----------
        subject : str
        status : Path
            How the preprocessing of the subject ended, if it did: a scan that it kept, or did not exclude, is no reason
            to preprocess the subject again, for what a later step finds a decision overrules there.
        """
        mine = {
            place for place, one in self._decided.items() if one.subject == subject and one.decision == "keep"
        }
        if not mine:
            return []
        rows = self._columns
        names = [
            Path(rows["path"][row]).name
            for row in self._rows[subject]
            if rows["path"][row] and (rows["modality"][row], bids_names.same_scan(rows["key"][row])) in mine
        ]
        try:
            ended = json.loads(status.read_text(encoding="utf-8"))
            if ended["status"] == "ok":
                asked = {*ended.get("kept", ()), *(scan["file"] for scan in ended["excluded"])}
                names = [name for name in names if name in asked]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # it is preprocessed anyway
        return sorted(names)

    def _decisions_file(self, name: str, rows: list[dict[str, str]]) -> Path:
        with settings_are_written():  # of all batches without any decision it is the same file
            return self._settings.file(f"{self.name}/{name}" if rows else "decisions", rows)

    def batches_file(self) -> Path:
        """JSON list of the batches."""
        return self._settings.file(f"{self.name}/batches", self.batches())

    def batches(self) -> list[str]:
        """Numbers of the batches with any subjects, as in file names: ``00003``."""
        return [f"{number:05d}" for number in sorted(self._batches)]

    def subjects(self, batch: str | None = None) -> list[str]:
        """Labels of the subjects of one batch, or of all."""
        return list(self._rows) if batch is None else self._batches[int(batch)]

    def files(self, subject: str) -> list[str]:
        """Files that a subject's usable scans are read from."""
        usable = [row for row in self._rows[subject] if self._columns["status"][row] == "ok"]
        return sorted({self._columns[c][row] for row in usable for c in index.FILE_COLUMNS} - {None})

    def dataset(self, subject: str) -> Path:
        """Root of the BIDS dataset with the subject's folder: the cohort's, or that of a site of it."""
        own = f"{os.sep}sub-{subject}{os.sep}"
        return next((Path(f.partition(own)[0]) for f in self.files(subject) if own in f), self.cohort.root)

    def state(self, subjects: Iterable[str]) -> str:
        """Hash of the names, sizes and times of change of the subjects' files, which changes when one of them does.

        Rules take it as a parameter. As inputs, half a million files would each become an object of Snakemake's,
        looked up among the outputs of all rules: minutes and gigabytes for every plan.
        """
        digest = hashlib.sha256()
        for subject in subjects:
            for file in self.files(subject):
                digest.update(f"{file.rpartition(os.sep)[2]} {index.state_of(file)}\n".encode())
        return digest.hexdigest()[:16]

    def field_map_state(self, subject: str) -> str:
        """Hash of the names, sizes and times of change of a subject's field maps and their sidecars; empty without any.

        The index does not have them: it is about T1w images and runs, and which runs they are for is read by who corrects.
        """
        # beside anat and func
        folders = {os.path.dirname(os.path.dirname(file)) for file in self.files(subject)}  # noqa: PTH120
        digest, found = hashlib.sha256(), False
        for folder in sorted(folders):
            fmap = f"{folder}{os.sep}fmap"
            try:
                names = sorted(os.listdir(fmap))  # noqa: PTH208
            except OSError:  # none, or in an archive
                continue
            for name in names:
                digest.update(f"{name} {index.state_of(f'{fmap}{os.sep}{name}')}\n".encode())
                found = True
        return digest.hexdigest()[:16] if found else ""

    def metadata(self, subjects: Iterable[str]) -> str:
        """Hash of what the index has of the subjects' scans, for the jobs that depend on it."""
        digest = hashlib.sha256()
        for subject in subjects:
            for row in self._rows[subject]:
                digest.update(repr([self._columns[field][row] for field in FIELDS]).encode())
        return digest.hexdigest()[:16]

    def repetition_times(self) -> list[float]:
        """Different repetition times (s) of the usable BOLD runs."""
        columns = (self._columns[name] for name in ("modality", "status", "tr_s"))
        return sorted(
            {tr for m, state, tr in zip(*columns, strict=True) if m == "bold" and state == "ok"} - {None}
        )

    def has_t1w(self) -> bool:
        """Whether any usable BOLD run has a T1 image."""
        anat, status = self._columns["anat"], self._columns["status"]
        return any(image is not None and state == "ok" for image, state in zip(anat, status, strict=True))

    @cached_property
    def modalities(self) -> frozenset[str]:
        """Modalities of which the cohort has a usable scan: ``bold``, ``t1w``."""
        pairs = zip(self._columns["modality"], self._columns["status"], strict=True)
        return frozenset(modality for modality, state in set(pairs) if state == "ok")

    def can_be_read_by(self, method: Method) -> bool:
        """Whether the cohort has at all what a method reads: hub tokens are of a BOLD run with its T1."""
        return set(method.modalities) <= self.modalities and (method.stage != "fusion" or self.has_t1w())

    def to_preprocess(self, batch: str | None = None) -> list[str]:
        """Subjects of a batch (or all) that enter as raw BIDS and have a usable scan."""
        if self.cohort.input != "bids":
            return []
        return [subject for subject in self.subjects(batch) if self.files(subject)]
