from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bhx_model.errors import DataError
from bhx_model.evaluation import feature_table
from bhx_prep.config.cohorts import TableSettings
from bhx_prep.evaluation.baselines import volumes
from bhx_prep.shards import read

ASEG = """# Measure EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume, {total}, mm^3
# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean
  1   4  100  {a}  Left-Lateral-Ventricle  30.1
  2  17  200  4000.5  Left-Hippocampus  60.2
  3  77  10   3.0  WM-hypointensities  60.2
"""
APARC = """# Measure Cortex, NumVert, Number of Vertices, 100, unitless
# ColHeaders StructName NumVert SurfArea GrayVol ThickAvg ThickStd
bankssts  1000  700  2000  {thick}  0.4
"""


def stats(folder: Path, name: str, a: float = 5000.0, thick: float = 2.5) -> None:
    (folder / name / "stats").mkdir(parents=True)
    (folder / name / "stats/aseg.stats").write_text(ASEG.format(a=a, total=1500000.5))
    for side in ("lh", "rh"):
        (folder / name / f"stats/{side}.aparc.stats").write_text(APARC.format(thick=thick))


@pytest.fixture
def cohort(make_shards) -> read.PackedCohort:
    rng = np.random.default_rng(0)
    runs = {f"sub-{i}_task-rest": rng.standard_normal((4, 20)).astype(np.float32) for i in range(3)}
    return read.read_index(make_shards("clinic", [runs]))


def test_freesurfer_of_an_fmriprep_run(cohort, tmp_path: Path) -> None:
    stats(tmp_path, "sub-0")
    stats(tmp_path, "sub-1_ses-a", 5000)
    stats(tmp_path, "sub-1_ses-b", 7000)
    (tmp_path / "sub-2/stats").mkdir(parents=True)  # has not finished
    (tmp_path / "fsaverage").mkdir()
    found = volumes.compute(cohort, tmp_path, TableSettings())
    assert found.people == ["clinic/0", "clinic/1"]
    assert found.columns == [
        "Left-Lateral-Ventricle", "Left-Hippocampus", "EstimatedTotalIntraCranialVol", "lh_bankssts", "rh_bankssts",
    ]  # fmt: skip
    assert found.values.tolist() == [[5000, 4000.5, 1500000.5, 2.5, 2.5], [6000, 4000.5, 1500000.5, 2.5, 2.5]]
    feature_table.write(found, tmp_path / "v.npz")
    assert feature_table.read(tmp_path / "v.npz").rows(["clinic/1", "clinic/2"], None)[0, 0] == 6000


def test_a_table_of_regions(cohort, tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text(
        "participant_id,version,hippocampus\n0,7.3.2-a,4000\n1,7.3.2-a,n/a\n9,x,1\n"
    )
    found = volumes.compute(cohort, tmp_path / "v.csv", TableSettings())
    assert (found.people, found.columns) == (["clinic/0", "clinic/1"], ["hippocampus"])
    assert np.isnan(found.values[1, 0])


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda folder: None, "no subject of clinic has finished stats in"),
        (lambda folder: folder.rmdir(), "is not there: name FreeSurfer's folder or a table as `morphometry`"),
        (lambda folder: stats(folder, "sub-0", "many"), "Volume_mm3 of Left-Lateral-Ventricle is no number"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(cohort, tmp_path: Path, break_it, says: str) -> None:
    folder = tmp_path / "freesurfer"
    folder.mkdir()
    break_it(folder)
    with pytest.raises(DataError, match=says):
        volumes.compute(cohort, folder, TableSettings())


def test_cohorts_with_other_regions_are_not_joined() -> None:
    one = feature_table.FeatureTable("volumes", False, ("a",), ["a/1"], ["x"], np.zeros((1, 1), np.float32))
    other = feature_table.FeatureTable("volumes", False, ("b",), ["b/1"], ["y"], np.zeros((1, 1), np.float32))
    with pytest.raises(DataError, match="are not of the same regions"):
        feature_table.join([one, other])
