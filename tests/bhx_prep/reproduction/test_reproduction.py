"""What `bhx reproduce` plans: what is missing, the configuration, the cost, the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from bhx_model.errors import ConfigError, DataError
from bhx_prep.config import config, recipes
from bhx_prep.config.recipes import Size
from bhx_prep.reproduction import costs, page, plan

WAYS = [
    (name, kind)
    for name in recipes.names()
    for kind, way in recipes.load(name).inputs.items()
    if way.reproduce is not None
]


def filled(chosen: plan.Plan) -> None:
    """A file in the place of each that is needed."""
    for need in chosen.way.needs:
        file = chosen.data / need.path.replace("**/", "a/").replace("*", "x")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@pytest.mark.parametrize(("name", "kind"), WAYS)
def test_every_way_has_a_page_a_refusal_and_a_configuration(name: str, kind: str, tmp_path: Path):
    chosen = plan.make(name, tmp_path / "data", kind, "amyloid" if name == "macc" else None)
    lacking = plan.missing(chosen)
    assert len(lacking) == len(chosen.way.needs)
    text = page.text(chosen, lacking)
    assert all(need.what.split()[0] in text for need in chosen.way.needs)
    assert "{data}" not in text
    with pytest.raises(DataError, match=f"{name}: the data are not there: no {tmp_path}") as refused:
        plan.refuse_missing(chosen, lacking)
    assert len(str(refused.value).replace(str(tmp_path), "")) <= 200
    filled(chosen)
    assert plan.missing(chosen) == []
    checked = config.check(plan.sections(chosen))
    assert set(checked.cohorts) == {name}
    assert set(checked.endpoints) == ({name} if recipes.load(name).endpoint else set())


def test_a_link_to_nowhere_is_missing(tmp_path: Path):
    chosen = plan.make("abide1", tmp_path, None)
    filled(chosen)
    table = tmp_path / "Phenotypic_V1_0b_preprocessed1.csv"
    table.unlink()
    table.symlink_to(tmp_path / "gone")
    assert plan.missing(chosen) == [f"{table} (table of phenotypes)"]


def test_what_cannot_be_reproduced_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="no endpoint or pretraining of the paper"):
        plan.make("hcpya", None, None)
    with pytest.raises(ConfigError, match="--input: MACC is not reproduced from 'timeseries'"):
        plan.make("macc", None, "timeseries")
    with pytest.raises(ConfigError, match="macc: the endpoint's column is not known: name it with --column"):
        plan.sections(plan.make("macc", None, None))


def test_costs_are_rates_times_scans():
    rates = costs.rates()
    size = Size(subjects=100, t1w=100, bold=200, frames=245, source="x")
    cost = costs.of_cohort(size, "fmriprep", rows=0)
    image = rates.features["image"]
    assert image.frames == 490
    assert cost.core_hours["features"] == pytest.approx(
        (200 * image.cpu_s_per_run / 2 + 2 * image.cpu_s_per_job) / 3600
    )
    assert cost.disk_gb == pytest.approx(
        200 * (image.mb_per_run / 2 + rates.shards["image"].mb_per_run) / 1000
    )
    evaluated = costs.of_cohort(size, "fmriprep", rows=9).core_hours
    assert evaluated.keys() - cost.core_hours.keys() == {"connectivity and floors"}
    rate = rates.evaluation
    seconds = 9 * 20 * rate.cpu_s_per_row_and_split + 200 * rate.cpu_s_per_run
    assert evaluated["connectivity and floors"] == pytest.approx(seconds / 3600)
    assert "fMRIPrep's hours were not measured" in costs.of_cohort(size, "bids", rows=0).unmeasured[0]


def test_the_rates_of_images_are_those_of_the_page_that_measured_them(root: Path):
    text = (root / "docs/explanation/scale.md").read_text()
    image, shards = costs.rates().features["image"], costs.rates().shards["image"]
    assert f"| features | {image.cpu_s_per_run} | {image.cpu_s_per_job} | {image.mb_per_run} |" in text
    assert f"| shards | < {shards.cpu_s_per_run} | {shards.cpu_s_per_job:.2f} | {shards.mb_per_run} |" in text
    counted = (root / "docs/explanation/model.md").read_text()
    for case, step in (
        ("structure forward+backward |  ", "structure"),
        ("fusion step, valid tokens | 11 ", "fusion"),
    ):
        (row,) = [line for line in counted.splitlines() if line.startswith(f"| {case}| fp32")]
        assert int(row.split("|")[5]) == costs.rates().training[step].gflop_per_sample


def test_gpu_hours_are_said_to_be_no_measurement():
    cost = costs.of_training("base")
    assert cost.gpu_hours.keys() == {"structure", "function", "fusion"}
    assert "no GPU was at hand" in cost.unmeasured[0]
    text = page.text(plan.make("ukb", None, None), [])
    assert "GPU-hours" in text
    assert "no GPU was at hand" in text


def test_rows_are_those_that_the_tables_have_columns_for():
    rows = plan.make("abide1", None, None).methods
    assert {"fc", "permuted", "site", "age_sex", "motion", "acquisition"} <= set(rows)
    assert "probe" not in rows
    assert not {"site", "age_sex"} & set(plan.make("ppmi", None, None).methods)
    assert "motion" in plan.make("ppmi", None, None).methods  # measured with the images
    assert "motion" not in plan.make("adhd200", None, None).methods


def test_weights_bring_the_rows_of_a_model(tmp_path: Path):
    given = plan.make("abide1", None, "fmriprep", weights=tmp_path / "export")
    study = config.check(plan.sections(given))
    assert study.experiments["given"].weights == tmp_path / "export"
    assert {"probe", "finetune", "function_regions_untrained"} <= set(study.endpoints["abide1"].methods)
