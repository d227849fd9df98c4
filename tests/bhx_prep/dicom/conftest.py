"""DICOM files of a small study, with a map and a table of subjects beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dicom_study import write_map

from bhx_prep import cli


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with ``dicom/``, ``map.yaml`` and ``subjects.tsv`` of one patient."""
    (tmp_path / "dicom").mkdir()
    write_map(tmp_path)
    (tmp_path / "subjects.tsv").write_text("patient_id\tparticipant_id\nPAT-004711\tA1\n")
    return tmp_path


@pytest.fixture
def ingest(study: Path, capsys) -> Callable[..., tuple[int, list[dict[str, str]], str]]:
    """Run ``bhx ingest dicom`` on the study: exit code, table, log."""
    pytest.importorskip("pydicom", reason="pip install 'bhx[dicom]'")
    from bhx_prep.dicom import convert

    try:
        convert.program()
    except ValueError as error:
        pytest.skip(str(error))

    def run(*more: str) -> tuple[int, list[dict[str, str]], str]:
        words = [
            "ingest",
            "dicom",
            str(study / "dicom"),
            str(study / "bids"),
            "--map",
            str(study / "map.yaml"),
            *more,
        ]
        capsys.readouterr()
        code = cli.main(words)
        shown = capsys.readouterr()
        lines = [line.split("\t") for line in shown.out.splitlines()]
        rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
        return code, rows, shown.err

    return run
