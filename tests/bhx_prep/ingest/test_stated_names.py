"""Names that a cohort states for tables without any."""

from __future__ import annotations

import pytest

from bhx_model.errors import ConfigError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.ingest.stated_names import stated_names


def test_names_in_the_root_or_of_the_configuration(tmp_path):
    cohort = CohortSection(input="timeseries", root=tmp_path)
    assert stated_names(cohort)["names"] is None
    (tmp_path / "names.txt").write_text("a\nb\n")
    stated = stated_names(cohort)
    assert stated == {"orientation": None, "names": ["a", "b"], "source": "names.txt", "is_explicit": False}
    (tmp_path / "mine.txt").write_text("c\nd\n")
    explicit = cohort.model_copy(update={"names": tmp_path / "mine.txt", "orientation": "frame,roi"})
    stated = stated_names(explicit)
    assert stated == {
        "orientation": "frame,roi",
        "names": ["c", "d"],
        "source": "mine.txt",
        "is_explicit": True,
    }
    assert stated_names(cohort.model_copy(update={"input": "bids"}))["names"] is None


def test_a_list_that_cannot_be_used(tmp_path):
    (tmp_path / "names.txt").write_text("a\na\n")
    cohort = CohortSection(input="timeseries", root=tmp_path)
    assert stated_names(cohort)["source"] == "names.txt holds a name twice: 'a'"
    for name, sentence in (("names.txt", "holds a name twice"), ("nowhere.txt", "No such file")):
        with pytest.raises(ConfigError, match=rf"cohorts\.ward\.names: .*{sentence}"):
            stated_names(cohort.model_copy(update={"names": tmp_path / name}), "ward")
