"""What the atlas lacks for the cohorts of a study, found in the configuration alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from one_table_study import snakemake

from bhx_prep import cli
from bhx_prep.atlas import checks
from bhx_prep.config import config

MNI, MNI6 = "MNI152NLin2009cAsym", "MNI152NLin6Asym"


@pytest.mark.parametrize(
    ("atlas", "space", "lines"),
    [
        ({}, MNI, []),
        ({}, "fsaverage5", []),
        ({"parcels": 300}, MNI, ["cohorts.a.space: MNI152NLin2009cAsym, where .* no volume of 300 parcels"]),
        ({"parcels": 300, "volume": "tpl-MNI152NLin2009cAsym_dseg.nii.gz"}, MNI, []),
        ({"parcels": 300, "source": "templateflow"}, MNI, []),
        ({}, MNI6, ["cohorts.a.space: MNI152NLin6Asym, but the atlas is in MNI152NLin2009cAsym: .*`templateflow`"]),
        ({"source": "templateflow"}, MNI6, []),
        ({"volume": ["tpl-MNI152NLin6Asym_dseg.nii.gz"]}, MNI, []),
        ({"volume": "mine.nii.gz"}, MNI, ["atlas.volume: mine.nii.gz: its name states no standard space"]),
        ({"volume": "tpl-MNI152NLin6Asym_dseg.nii.gz"}, MNI6, []),
        ({"parcels": 600}, "fsLR", ["cohorts.a.space: fsLR, where", "features.harmonics: 200, .* no fsLR-32k labels"]),
        ({"parcels": 600, "cifti": "a.dlabel.nii"}, "fsLR", []),
        ({"parcels": 600, "source": "templateflow"}, MNI, ["features.harmonics: 200, but they need"]),
        ({"source": "files", "cifti": "a", "names": "n"}, "fsLR", []),
        ({"source": "files", "cifti": "a", "names": "n"}, MNI, ["not named in the config: set atlas.volume"]),
        ({"source": "files", "left": "l", "right": "r", "names": "n"}, "fsaverage5", []),
    ],
)  # fmt: skip
def test_what_the_atlas_lacks_is_found_in_the_config_alone(atlas: dict, space: str, lines: list[str]) -> None:
    cohorts = {
        "a": {"input": "fmriprep", "root": "a", "space": space},
        "b": {"input": "timeseries", "root": "b"},
    }
    study = config.check({"cohorts": cohorts, "experiments": {"e": {"cohorts": ["b"]}}, "atlas": atlas})
    found = checks.mistakes(study)
    assert len(found) == len(lines)
    for line, pattern in zip(found, lines, strict=True):
        assert re.search(pattern, line), line


def test_what_the_atlas_lacks_is_reported_before_anything_runs(root: Path, tmp_path: Path, capsys) -> None:
    done = snakemake(root, tmp_path, {"parcels": 300}, "results/a/index.parquet", input="fmriprep")
    said = "this will fail: cohorts.a.space: MNI152NLin2009cAsym, where the atlas is not there"
    assert said in done.stderr
    assert cli.main(["config", "check", str(tmp_path / "config.yaml")]) == 1
    assert "cohorts.a.space: MNI152NLin2009cAsym, where" in capsys.readouterr().err
