"""Known data sets: which module lists their files, what it fills in, and how the index follows changes."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from pydantic import ValidationError

from bhx_model.errors import ConfigError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.config.layouts import KNOWN
from bhx_prep.ingest import index, layouts
from bhx_prep.ingest.rows import new_row


def _subjects(root):
    return {folder.name.removeprefix("visit_"): (folder.name,) for folder in root.glob("visit_*")}


def _rows(start, root, places, cohort, t1w_mm):
    for file in sorted((root / places[0]).glob("*.npy")):
        yield {**new_row(start, "bold", {"task": "rest"}, file), "tr_s": cohort.tr_s}


@pytest.fixture
def made_up(monkeypatch):
    """A layout of its own, in the place of UK Biobank's."""
    module = ModuleType("bhx_prep.ingest.made_up")
    listing = layouts.Listing(_subjects, _rows, "visit_<id>")
    module.LAYOUTS = {"ukb": layouts.Layout({"timeseries": listing})}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(layouts.MODULES, "ukb", "made_up")


def _section(root, **more):
    return CohortSection(input="timeseries", layout="ukb", root=root, **more)


def test_every_layout_has_terms_and_an_input():
    for known in KNOWN.values():
        assert known.terms
        assert known.documented
        assert known.inputs
        assert "" in known.unknown_values


def test_the_section_has_what_is_known_of_the_data_set(tmp_path):
    section = _section(tmp_path)
    assert section.tr_s == 0.735
    assert section.missing is not None
    assert "-3" in section.missing
    assert section.terms is not None
    assert "UK Biobank" in section.terms


def test_the_user_has_the_last_word(tmp_path):
    section = _section(tmp_path, tr_s=2.0, missing=("x",), terms="mine")
    assert (section.tr_s, section.missing, section.terms) == (2.0, ("x",), "mine")


def test_an_input_that_the_data_set_has_not_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="HCP Young Adult has no `input: bids`"):
        CohortSection(input="bids", layout="hcpya", root=tmp_path)


def test_a_layout_without_a_module_is_refused(monkeypatch):
    monkeypatch.delitem(layouts.MODULES, "ukb", raising=False)
    with pytest.raises(ConfigError, match="'ukb' cannot be read"):
        layouts.load("ukb")


def test_rows_come_from_the_listing(made_up, tmp_path):
    for name in ("visit_01", "visit_02"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "series.npy").write_bytes(b"x")
    table = index.build("a", _section(tmp_path))
    assert table["key"].to_pylist() == ["a_sub-01_task-rest", "a_sub-02_task-rest"]


def test_a_subject_without_a_place_is_a_row(made_up, tmp_path):
    (tmp_path / "visit_01").mkdir()
    rows = index.build("a", _section(tmp_path, subjects=("07",))).to_pylist()
    assert [(row["subject"], row["status"]) for row in rows] == [("07", "excluded")]
    assert "expected visit_<id>" in rows[0]["reason"]


def test_an_empty_root_names_what_is_expected(made_up, tmp_path):
    with pytest.raises(ConfigError, match="expects visit_<id> there"):
        index.build("a", _section(tmp_path))


def test_only_the_changed_subject_is_listed_anew(made_up, tmp_path, monkeypatch):
    root = tmp_path / "data"
    for name in ("visit_01", "visit_02"):
        (root / name).mkdir(parents=True)
        (root / name / "series.npy").write_bytes(b"x")
    index.load(tmp_path / "cache", "a", _section(root))
    built = []
    whole = index.build
    monkeypatch.setattr(
        index,
        "build",
        lambda name, cohort, **more: built.append(cohort.subjects) or whole(name, cohort, **more),
    )
    assert index.load(tmp_path / "cache", "a", _section(root)).num_rows == 2
    (root / "visit_02" / "series.npy").write_bytes(b"xyz")
    index.load(tmp_path / "cache", "a", _section(root))
    assert built == [("02",)]


def test_the_state_of_a_member_is_that_of_its_archive(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"x")
    assert index.state_of(f"{tmp_path}/a.zip/b/c.nii.gz") == index.state_of(f"{tmp_path}/a.zip")
    assert index.state_of(f"{tmp_path}/b.zip/b") == "absent"
