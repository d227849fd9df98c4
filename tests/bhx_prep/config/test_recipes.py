"""Recipes of cohorts: as their schema has them, the only place of their facts, and with counts that the real tables have."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
import yaml

from bhx_model.errors import ConfigError
from bhx_prep.config import cohorts, config, recipes
from bhx_prep.config.layouts import KNOWN
from bhx_prep.ingest import layouts
from bhx_prep.report import published

#: What the paper used, and the layouts beside it.
EXPECTED = {"ukb", "abcd", "abide1", "abide2", "adhd200", "ppmi", "adni", "hcpa", "macc", "hcpya"}

COUNTED = [
    (name, table.file)
    for name in recipes.names()
    for table in recipes.load(name).tables
    if table.rows is not None or any(column.counts for column in table.columns)
]


def table_rows(path: Path) -> list[dict[str, str]]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.DictReader(io.StringIO(content.decode("latin-1"), newline="")))


def test_every_cohort_of_the_paper_has_a_recipe():
    assert set(recipes.names()) == EXPECTED
    endpoints = [recipes.load(name).endpoint for name in recipes.names()]
    assert sorted(e["paper"] for e in endpoints if e) == sorted(published.names())


def test_layouts_are_those_of_the_recipes():
    assert set(KNOWN) == set(get_args(cohorts.Layout)) == set(layouts.MODULES)
    assert all(recipes.load(name).layout == name for name in KNOWN)
    assert "macc" not in KNOWN


@pytest.mark.parametrize(("name", "file"), COUNTED)
def test_counts_are_those_of_the_real_tables(name: str, file: str, shared):
    try:
        rows = table_rows(shared(f"data/phenotype/{file}"))
    except pytest.skip.Exception:
        rows = table_rows(shared(f"data/phenotype/{file}.gz"))
    (table,) = [t for t in recipes.load(name).tables if t.file == file]
    assert len(rows) == table.rows
    for column in table.columns:
        found = Counter(row[column.name] for row in rows)
        assert {value: found[value] for value in column.counts} == column.counts, column.name
        if column.counts and column.values.keys() <= column.counts.keys() and len(column.counts) > 1:
            assert sum(column.counts.values()) == table.rows, f"{column.name}: values are missing"


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_label_codes_are_the_endpoints(name: str):
    """Where a table's codes are known, the endpoint's classes stand for them and are named alike."""
    recipe = recipes.load(name)
    endpoint = recipe.endpoint or {}
    for column in (
        c for t in recipe.tables for c in t.columns if c.name == endpoint.get("column") and c.values
    ):
        for one in endpoint["classes"]:
            meanings = {column.values[str(value)].lower() for value in one["values"]}
            assert len(meanings) == len(one["values"])
            assert any(one["name"].lower()[:3] in m or m.startswith("cognitively") for m in meanings), (
                name,
                one,
            )


def test_the_papers_study_has_the_recipes_endpoints(root: Path):
    study = yaml.safe_load((root / "docs/paper.yaml").read_text())
    for name, endpoint in study["endpoints"].items():
        recipe = recipes.load(name).endpoint
        assert recipe is not None
        if recipe["column"] is not None:
            # which rows its table has is the study's choice
            assert {k: v for k, v in endpoint.items() if k not in ("cohort", "methods")} == recipe, name
    checked = config.load(root / "docs/paper.yaml")
    for name, cohort in checked.cohorts.items():
        assert name in recipes.names()
        assert cohort.layout in (None, recipes.load(name).layout)


def test_an_unknown_cohort_names_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"no cohort 'abide' is known; did you mean 'abide\d'\?; known: abcd, abide1"
    ):
        recipes.load("abide")
    with pytest.raises(ConfigError, match="did you mean 'abide1'"):
        recipes.load("ABIDE1")


def test_a_fact_without_its_source_is_refused(tmp_path: Path):
    values = yaml.safe_load((recipes.folder() / "abide1.yaml").read_text())
    values["exclusions"][0]["source"] = "hearsay"
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="source 'hearsay' is not among"):
        recipes.read(tmp_path / "x.yaml")


def test_a_key_of_no_schema_is_refused(tmp_path: Path):
    values = yaml.safe_load((recipes.folder() / "macc.yaml").read_text())
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({**values, "term": "x"}))
    with pytest.raises(ConfigError, match="term: no such key; did you mean 'terms'"):
        recipes.read(tmp_path / "x.yaml")


def test_the_page_of_the_paper_has_the_recipes_numbers(root: Path):
    text = (root / "docs/how-to/paper.md").read_text()
    for name in ("ukb", "abcd"):
        recipe = recipes.load(name)
        numbers = "; ".join(f"{n:,}" for n in (recipe.paper.subjects, recipe.paper.t1w, recipe.paper.bold))
        assert f"| {recipe.title} | {numbers} |" in text


def test_codes_of_a_column():
    assert recipes.load("abide1").codes("DX_GROUP") == {"1": "autism", "2": "control"}
    assert recipes.load("abide1").codes("no such column") == {}
