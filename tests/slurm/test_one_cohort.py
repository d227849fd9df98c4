"""One cohort again: on the cluster without touching others, after changes of its subjects, and after a withdrawal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile

import pyarrow.parquet as pq
import pytest

from bhx_prep.config.config import check
from bhx_prep.ingest import batches
from bhx_prep.trainings import Trainings

TRAININGS = {"train_encoder", "train_fusion"}


@pytest.fixture
def changing(finished, tmp_path):
    """The finished study, whose data may be changed: they are put back as they were."""
    kept = tmp_path / "kept"
    shutil.copytree(finished.data, kept)
    yield finished
    shutil.rmtree(finished.data)
    shutil.copytree(kept, finished.data)


def done(study, log="snakemake.log"):
    """Jobs that ran, without the targets."""
    return {job for job in study.rules_run(log) if " " in job or job == "report_study"}


def embedded(study):
    """The job that embeds the tokens of the cohort that is predicted."""
    made = Trainings(check(study.config))
    return f"embed_tokens {made.trainset('mini')} {made.pair('mini')} clinic"


def batch(study, cohort, subject):
    n = json.loads((study.folder / f"results/{cohort}/plan.json").read_text())["n_batches"]
    return f"{batches.batch_of(cohort, subject, n):05d}"


def test_one_cohort_again_runs_no_job_of_another_and_no_training(slurm, finished):
    before = finished.hashes()
    status = finished.run("cohort_town", "-R", "extract_features", environment=slurm.environment)
    assert status == 0, finished.log()[-3000:]
    assert done(finished) == {
        "extract_features town 00000", "extract_features town 00001", "pack_shards town 00000",
        "pack_shards town 00001", "check_cohort town", "index_shards town", "collect_quality town",
    }  # fmt: skip
    comments = [what for number, what in slurm.queue("%i %k") if number in finished.submitted()]
    assert sorted(what.partition("#")[0] for what in comments) == [
        "rule_batch_extract_features_pack_shards",
        "rule_batch_extract_features_pack_shards",
        "rule_check_cohort_wildcards_town",
        "rule_collect_quality_wildcards_town",
        "rule_index_shards_wildcards_town",
    ]
    assert finished.hashes() == before
    # the same bytes: nothing that depends on them runs again
    assert finished.run("-n", profile=None, log="after.log") == 0
    assert "Nothing to be done" in finished.log("after.log")


def test_changed_bytes_run_exactly_what_depends_on_them(changing):
    """A series of the cohort that is only predicted in changes: its batch and its scores, but no training."""
    (series,) = (changing.data / "clinic/sub-c003/func").glob("*.parquet")
    table = pq.read_table(series)
    pq.write_table(table.slice(0, table.num_rows - 2), series)
    sidecar = series.with_suffix(".json")
    metadata = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(metadata | {"NumberOfVolumes": table.num_rows - 2}))
    index = [sys.executable, "-m", "bhx_prep.cli", "index", "clinic", "--refresh"]
    subprocess.run(index, cwd=changing.folder, check=True, capture_output=True)
    assert changing.run(profile=None) == 0, changing.log()[-3000:]
    number = batch(changing, "clinic", "c003")
    assert done(changing) == {
        "publish_index clinic", f"extract_features clinic {number}", f"pack_shards clinic {number}",
        "check_cohort clinic", "index_shards clinic", embedded(changing), "split_endpoint diagnosis 0",
        "compute_connectivity clinic correlation", "evaluate_baseline diagnosis fc 0",
        "check_overlap mini diagnosis", "evaluate_model mini diagnosis probe 0", "collect_table diagnosis",
        "inspect_endpoint mini diagnosis", "describe_connectivity diagnosis", "report_study", "collect_quality clinic",
    }  # fmt: skip


def test_ten_new_subjects_touch_only_the_batches_they_fall_in(changing):
    of_batch = {label: batch(changing, "clinic", label) for label in (f"n{i:03d}" for i in range(100))}
    touched = {"00001", "00002"}  # of four
    new = [label for label, number in of_batch.items() if number in touched][:10]
    for label in new:
        for file in (changing.data / "clinic/sub-c001").rglob("*.*"):
            copy = changing.data / str(file.relative_to(changing.data)).replace("sub-c001", f"sub-{label}")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    assert changing.run("cohort_clinic", profile=None) == 0, changing.log()[-3000:]
    expected = {
        f"{rule} clinic {number}" for rule in ("extract_features", "pack_shards") for number in touched
    }
    whole = {
        f"{rule} clinic" for rule in ("publish_index", "check_cohort", "index_shards", "collect_quality")
    }
    assert done(changing) == expected | whole
    listed = json.loads((changing.folder / "results/clinic/shards/index.json").read_text())
    assert sum(shard["n"] for shard in listed["shards"]["t1w"]) == 16 + len(new)


def test_a_subject_who_withdraws_leaves_no_trace(changing):
    def forget(*words):
        command = [sys.executable, "-m", "bhx_prep.cli", "forget", *words]
        return subprocess.run(command, cwd=changing.folder, capture_output=True, text=True, check=False)

    refused = forget("clinic", "c003")
    assert refused.returncode == 1
    assert "sub-c003 is still in" in refused.stderr
    shutil.rmtree(changing.data / "clinic/sub-c003")
    refused = forget("clinic", "c003")
    assert "still has a row in" in refused.stderr
    table = changing.data / "clinic/participants.tsv"
    table.write_text("".join(line for line in table.open() if not line.startswith("sub-c003")))

    assert forget("clinic", "c003", "--dry-run").returncode == 0
    assert find(changing, "c003")
    gone = forget("clinic", "c003")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert "weights that have seen" not in gone.stdout  # clinic is only predicted in
    assert find(changing, "c003") == []
    number = batch(changing, "clinic", "c003")
    assert (changing.folder / f"results/clinic/shards/bold-{number}.tar").exists()
    assert (changing.folder / "results/clinic/shards/index.json").exists()

    # what is made now is made without the subject, and the training is none of it
    assert changing.run(profile=None) == 0, changing.log()[-3000:]
    assert find(changing, "c003") == []
    assert not TRAININGS & {job.split()[0] for job in done(changing)}

    # a subject whom the weights have seen
    shutil.rmtree(changing.data / "town/sub-t002")
    table = changing.data / "town/participants.tsv"
    table.write_text("".join(line for line in table.open() if not line.startswith("sub-t002")))
    report = forget("town", "t002").stdout
    split = "trained on the subject"
    assert report.count(split) + report.count("the subject was held out") == 3, report
    assert all(f"({stage})" in report for stage in ("structure", "function", "fusion"))
    assert find(changing, "t002") == []


def find(study, label):
    """Files of a study in which a label stands: in a name, in their bytes, or in a column of a table."""
    found = []
    for top in ("results", ".bhx", ".snakemake"):
        for path in (study.folder / top).rglob("*"):
            if label in path.name or (path.is_file() and label in contents(path)):
                found.append(str(path.relative_to(study.folder)))
    return found


def contents(path):
    """Text of a file: names, headers and JSON; four bytes of an array may be a label by chance."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return " ".join([*table.column_names, *map(str, table.to_pylist()[:2000])])
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            return file.read(int.from_bytes(file.read(8), "little")).decode()
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            texts = [tar.extractfile(member).read() for member in tar if member.name.endswith(".json")]
            return " ".join([*tar.getnames(), *(text.decode() for text in texts)])
    return path.read_bytes().decode("latin-1")
