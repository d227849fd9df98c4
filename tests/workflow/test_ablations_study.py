"""The study of ablations (docs/ablations.yaml): it plans as a whole, and trains nothing twice."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import skeleton
import yaml

from bhx_prep.commands import simulate
from bhx_prep.config import config
from bhx_prep.trainings import Trainings


def test_it_trains_nothing_twice(root: Path, tmp_path: Path):
    study = yaml.safe_load((root / "docs/ablations.yaml").read_text())
    for name, cohort in study["cohorts"].items():
        cohort["root"] = name
        if cohort["input"] == "fmriprep":
            simulate.simulate(tmp_path / name, "fmriprep", simulate.Size(1, 1, 1, 0.8, 383))
        if "participants" in cohort:
            cohort["participants"] = f"{name}.tsv"
            columns = ["participant_id", "DX_GROUP", "SITE_ID", "flanker"]
            (tmp_path / f"{name}.tsv").write_text("\t".join(columns) + "\n")
    table = tmp_path / "ukb/sub-1/func/sub-1_task-rest_Schaefer17n400p.csv.gz"
    table.parent.mkdir(parents=True)
    pd.DataFrame([[0.0] * 4], columns=["label_name", "0", "1", "2"]).to_csv(table, index=False)
    for endpoint in study["endpoints"].values():  # what is left of hundreds of scores
        endpoint |= {"seeds": 1, "splits": {"finetune_seeds": 1}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    planned = skeleton.snakemake(root, tmp_path, "-n", "tables")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    jobs = skeleton.job_counts(planned.stdout)
    # whole, 0.1 and 0.3 of the subjects; whose function encoder has three variants besides
    assert (jobs["split_pretraining"], jobs["train_encoder"]) == (3, 3 + 3 + 3)
    assert jobs["train_fusion"] == len(study["experiments"]) - len(("structure", "function"))
    pairs, cohorts = 3 + 3, len(study["cohorts"])
    assert jobs["embed_tokens"] == pairs * cohorts


def test_one_modality_alone_is_the_encoder_of_the_whole_model(root: Path):
    study = config.load(root / "docs/ablations.yaml")
    made = Trainings(study)
    for stage in ("structure", "function"):
        assert study.experiments[stage].stages == (stage,)
        assert made.stage_folder(stage, stage) == made.stage_folder("hub128", stage)
    assert {
        e.overrides["fusion"]["model.hub_tokens"]
        for e in study.experiments.values()
        if "fusion" in e.overrides
    } == {*(32, 64, 256)}
