"""fMRIPrep in containers: what is called, what its failures mean, and what comes back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from settings_files import settings_file

from bhx_model.errors import SiteError
from bhx_prep.config.preproc import PreprocSection
from bhx_prep.preproc import containers, fmriprep, template_files
from bhx_prep.preproc.arguments import UsableScan
from bhx_prep.preproc.bids_view import make_view
from bhx_prep.preproc.one_at_a_time import only_one
from bhx_prep.preproc.work_folder import work_folder

#: Answers the questions of fmriprep-docker and does what fMRIPrep would leave behind. A stand-in: no image is run.
STAND_IN = """#!{python}
import json, os, pathlib, signal, sys, time
words = sys.argv[1:]
if words[0] == "version":
    print("28.0.0")
elif words[0] in ("ps", "stop"):
    container = pathlib.Path(os.environ["STAND_IN_LOG"]).with_name("container")
    if words[0] == "stop":
        container.unlink()
    elif container.exists() and words[-1] == "volume=" + container.read_text():
        print("0123abcd")
elif words[0] == "images":
    print("sha256:0123")
elif words[0] == "image":
    print(json.dumps([{{"Id": "sha256:id", "RepoDigests": ["nipreps/fmriprep@sha256:4567"]}}]))
elif "--entrypoint=free" in words:
    print("       total used free\\nMem: 64000 1000 63000")
else:
    pathlib.Path(os.environ["STAND_IN_LOG"]).write_text(json.dumps(words))
    mounts = dict(reversed(w.removesuffix(":ro").rsplit(":", 1)) for f, w in zip(words, words[1:]) if f == "-v")
    if "STAND_IN_STAYS" in os.environ:  # as fMRIPrep in a container, it does not hear SIGTERM
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        container = pathlib.Path(os.environ["STAND_IN_LOG"]).with_name("container")
        container.write_text(mounts["/scratch"])
        while container.exists():
            time.sleep(0.02)
        sys.exit(137)
    print(os.environ.get("STAND_IN_SAYS", "fMRIPrep finished successfully!"))
    code = int(os.environ.get("STAND_IN_CODE", "0"))
    for name, text in json.loads(os.environ.get("STAND_IN_WRITES", "{{}}")).items():
        path = pathlib.Path(mounts["/out"]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if code == 0 and "STAND_IN_LAZY" not in os.environ:
        subject = sorted(p.name for p in pathlib.Path(mounts["/data"]).glob("sub-*"))
        func = pathlib.Path(mounts["/out"]) / subject[0] / "func"
        func.mkdir(parents=True)
        (func / f"{{subject[0]}}_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz").write_bytes(b"frames")
        (func.parents[1] / "dataset_description.json").write_text("{{}}")
    sys.exit(code)
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two subjects of whom one is to be shown; one of their files is a link into an annex."""
    root = tmp_path / "raw"
    for subject in ("01", "02"):
        for name in (
            "anat/sub-{}_T1w",
            "func/sub-{}_task-rest_bold",
            "func/sub-{}_task-nback_bold",
            "fmap/sub-{}_dir-AP_epi",
        ):
            path = root / f"sub-{subject}" / f"{name.format(subject)}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(path.name.encode())
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    (root / "task-rest_bold.json").write_text('{"RepetitionTime": 2.0}')
    annexed = root / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz"
    (root / "annex").mkdir()
    annexed.rename(root / "annex" / "content")
    annexed.symlink_to("../../annex/content")
    return root


@pytest.fixture
def job(dataset: Path, tmp_path: Path, monkeypatch):
    """Run the command with a stand-in for docker; its words, its status file and its exit code come back."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "docker").write_text(STAND_IN.format(python=sys.executable))
    (tools / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "words.json"))
    (tmp_path / "license.txt").write_text("nobody\n")

    def run(subject: str = "01", **changes):
        settings = PreprocSection(
            backend="fmriprep-docker",
            fs_license=tmp_path / "license.txt",
            fmriprep_args=("--fs-no-reconall",),
        ).model_dump(mode="json")
        out = tmp_path / "preproc"
        code = fmriprep.main(
            [
                *("--subject", subject, "--cohort", "abide1", "--root", str(dataset), "--tasks", "rest"),
                *("--scans", str(index_of(dataset, tmp_path / "abide1.json"))),
                *("--preproc", settings_file({**settings, **changes}), "--threads", "4", "--mem-mb", "16000"),
                *(
                    "--out",
                    str(out),
                    "--status",
                    str(out / f"sub-{subject}_status.json"),
                    "--work",
                    str(tmp_path / "work"),
                ),
            ]
        )
        words = tmp_path / "words.json"
        status = out / f"sub-{subject}_status.json"
        return (
            code,
            json.loads(status.read_text()) if status.is_file() else None,
            json.loads(words.read_text()) if words.is_file() else None,
        )

    return run


def index_of(dataset, file):
    """What the index writes for preprocessing, where every image is usable."""
    images = sorted(p.relative_to(dataset) for p in dataset.glob("sub-*/*/*_*.nii.gz"))
    scans = {p.parts[0].removeprefix("sub-"): [] for p in images}
    for path in images:
        if path.name.endswith(("_bold.nii.gz", "_T1w.nii.gz")):
            scans[path.parts[0].removeprefix("sub-")].append([str(path), None, None])
    file.write_text(json.dumps({"scans": scans}))
    return file


def test_a_view_shows_one_subject_and_the_asked_tasks(dataset, tmp_path):
    view = make_view(dataset, "01", ["rest"], tmp_path / "view")
    assert sorted(str(p.relative_to(view)) for p in view.rglob("*") if p.is_file()) == [
        "dataset_description.json",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/fmap/sub-01_dir-AP_epi.nii.gz",
        "sub-01/func/sub-01_task-rest_bold.nii.gz",
        "task-rest_bold.json",
    ]
    bold = view / "sub-01/func/sub-01_task-rest_bold.nii.gz"
    assert not bold.is_symlink()  # a link would lead out of what is mounted
    assert bold.read_bytes() == b"sub-01_task-rest_bold.nii.gz"


def test_views_that_cannot_be_made_are_sentences(dataset, tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        make_view(dataset, "03", ["rest"], tmp_path / "view")
    with pytest.raises(ValueError, match="letters and digits"):
        make_view(dataset, "../01", ["rest"], tmp_path / "view")
    with pytest.raises(ValueError, match="lies inside the dataset"):
        make_view(dataset, "01", ["rest"], dataset / "work")
    # the next ones are of no subject
    (dataset / "annex" / "content").unlink()
    with pytest.raises(SiteError, match="datalad get"):
        make_view(dataset, "01", ["rest"], tmp_path / "view")
    (dataset / "dataset_description.json").write_text('{"Name": "x"}')
    with pytest.raises(SiteError, match="states no BIDSVersion"):
        make_view(dataset, "02", ["rest"], tmp_path / "view")
    (dataset / "dataset_description.json").unlink()
    with pytest.raises(SiteError, match=r"no dataset_description\.json"):
        make_view(dataset, "02", ["rest"], tmp_path / "view")


def test_what_fmriprep_does_not_read_need_not_be_here(dataset, tmp_path):
    session = dataset / "sub-02/ses-1"
    for folder in ("dwi", "func"):
        (session / folder).mkdir(parents=True)
    (session / "dwi/sub-02_ses-1_dwi.nii.gz").symlink_to("/none")
    (session / "func/sub-02_ses-1_task-rest_bold.nii.gz").write_text("x")
    (session / "sub-02_ses-1_scans.tsv").write_text("filename\n")
    view = make_view(dataset, "02", ["rest"], tmp_path / "view")
    shown = {path.name for path in (view / "sub-02/ses-1").rglob("*") if path.is_file()}
    assert shown == {"sub-02_ses-1_scans.tsv", "sub-02_ses-1_task-rest_bold.nii.gz"}


def test_fmriprep_docker_itself_starts_the_container(job, tmp_path):
    code, status, words = job()
    assert code == 0
    assert status["status"] == "ok"
    image = words.index("nipreps/fmriprep:25.2.7")
    assert words[image + 1 : image + 4] == ["/data", "/out", "participant"]
    inner = words[image:]
    for option, value in (
        ("--participant-label", "01"),
        ("--nthreads", "4"),
        ("--omp-nthreads", "4"),
        ("--mem-mb", "14000"),  # less than the job has
        ("--output-spaces", "MNI152NLin2009cAsym:res-2"),
    ):
        assert inner[inner.index(option) + 1] == value
    assert {"--notrack", "--skip-bids-validation", "--fs-no-reconall"} <= set(inner)
    assert words[words.index("-u") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert "-it" not in words
    mounted = {
        words[i + 1].removesuffix(":ro").rsplit(":", 1)[1]: words[i + 1]
        for i, w in enumerate(words)
        if w == "-v"
    }
    assert mounted["/data"].endswith(":ro")
    assert mounted["/opt/freesurfer/license.txt"].startswith(str(tmp_path / "license.txt"))
    assert set(mounted) == {"/data", "/out", "/scratch", "/opt/freesurfer/license.txt"}
    assert (
        next((tmp_path / "preproc/sub-01/func").glob("*_desc-preproc_bold.nii.gz")).read_bytes() == b"frames"
    )
    assert (tmp_path / "preproc" / "dataset_description.json").is_file()
    assert not list((tmp_path / "work").iterdir())


def test_templates_are_mounted_and_the_network_is_off(job, tmp_path):
    for name in template_files.needed(PreprocSection().model_dump(mode="json")):
        (tmp_path / "templateflow" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "templateflow" / name).write_text("x")
    _, status, words = job(templateflow_home=str(tmp_path / "templateflow"))
    assert status["status"] == "ok"
    assert "--network=none" in words
    inside = next(w.split("=", 1)[1] for w in words if w.startswith("TEMPLATEFLOW_HOME="))
    assert any(w.startswith(f"{tmp_path / 'templateflow'}:{inside}") for w in words)


def test_a_subject_that_fails_is_a_status_with_the_reason(job, monkeypatch, tmp_path):
    monkeypatch.setenv("STAND_IN_CODE", "1")
    monkeypatch.setenv(
        "STAND_IN_SAYS", "Traceback\\n  File x\\nRuntimeError: No T1w images found for participant 01"
    )
    code, status, _ = job()
    assert code == 0
    assert status["status"] == "failed"
    assert status["exit_code"] == 1
    assert "No T1w images found" in status["reason"]
    assert Path(status["log"]).is_file()
    assert (tmp_path / "work").is_dir()  # to resume
    assert job(on_failure="stop")[0] == 1


def test_success_without_images_is_none_and_nobodys_fault(job, monkeypatch, capsys):
    monkeypatch.setenv("STAND_IN_LAZY", "1")
    code, status, _ = job()
    assert (code, status) == (1, None)
    assert "wrote no preprocessed image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("write /out/x: No space left on device", "the disk is full"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock", "daemon cannot be reached"),
        (
            "Error response from daemon: pull access denied for nipreps/fmriprep",
            "docker pull nipreps/fmriprep:25.2.7",
        ),
        ("fmriprep: error: unrecognized arguments: --use-aroma", "preproc.fmriprep_args"),
        (
            "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='templateflow.s3.amazonaws.com', port=443)",
            "fill preproc.templateflow_home",
        ),
        ("Segmentation fault", "Nobody is excluded for what is unknown"),
    ],
)
def test_faults_of_the_site_stop_the_run_and_are_booked_to_no_subject(
    job, monkeypatch, capsys, said, meaning
):
    monkeypatch.setenv("STAND_IN_CODE", "1")
    monkeypatch.setenv("STAND_IN_SAYS", said)
    code, status, _ = job()
    assert (code, status) == (1, None)
    assert meaning in capsys.readouterr().err


def test_a_lack_of_memory_is_an_attempt_that_another_with_more_follows(job, monkeypatch, capsys):
    monkeypatch.setenv("STAND_IN_CODE", "137")
    code, status, _ = job()
    assert (code, status) == (1, None)
    assert (
        "out of memory with 16000 MB (attempt 1): if no attempt follows, raise mem_mb"
        in capsys.readouterr().err
    )


def test_fmriprep_gets_less_than_the_job():
    given = [fmriprep.fmriprep_memory(mb) for mb in (24000, 32000, 40000, 2000)]
    assert given == [21000, 28000, 35000, 1000]


CRASH = """Node: fmriprep_25_2_wf.sub_01_wf.{node}
Working directory: /scratch/x

Node inputs:

in_file = <undefined>

Traceback (most recent call last):
  File "/app/x.py", line 67, in run_node
nibabel.filebasedimages.ImageFileError: Compressed file ended before the end-of-stream marker
"""


def finished(run: str) -> dict[str, str]:
    stem = f"sub-01/func/sub-01_task-rest_{run}"
    return {
        f"{stem}_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz": "frames",
        f"{stem}_desc-confounds_timeseries.tsv": "x",
    }


@pytest.fixture
def four_runs(dataset):
    func = dataset / "sub-01/func"
    (func / "sub-01_task-rest_bold.nii.gz").rename(func / "sub-01_task-rest_run-01_bold.nii.gz")
    for run in ("02", "03", "04"):
        (func / f"sub-01_task-rest_run-{run}_bold.nii.gz").write_text(run)


def crash_of(node: str) -> dict[str, str]:
    return {
        f"sub-01/log/20261126_1/crash-20261126-120000-u-{node.split('.')[-1]}-1.txt": CRASH.format(node=node)
    }


@pytest.mark.usefixtures("four_runs")
def test_a_run_that_crashed_beside_three_that_finished_leaves_the_three(job, monkeypatch, tmp_path):
    monkeypatch.setenv("STAND_IN_CODE", "1")
    made = {"sub-01/anat/sub-01_desc-preproc_T1w.nii.gz": "T1w"}
    for run in ("run-01", "run-02", "run-3"):  # some versions drop the zero
        made |= finished(run)
    half = dict([next(iter(finished("run-04").items()))])
    made |= half | crash_of("bold_task_rest_run_04_wf.bold_fit_wf.hmc")
    monkeypatch.setenv("STAND_IN_WRITES", json.dumps(made))
    code, status, _ = job()
    assert (code, status["status"], status["exit_code"]) == (0, "ok", 1)
    [excluded] = status["excluded"]
    assert excluded["file"] == "sub-01_task-rest_run-04_bold.nii.gz"
    assert "node bold_task_rest_run_04_wf.bold_fit_wf.hmc crashed: " in excluded["reason"]
    assert "ImageFileError: Compressed file ended" in excluded["reason"]
    kept = {p.name for p in (tmp_path / "preproc/sub-01/func").iterdir()}
    assert len(kept) == 6
    assert not any("run-04" in name for name in kept)


@pytest.mark.usefixtures("four_runs")
@pytest.mark.parametrize(
    ("node", "n_finished"),
    [("anat_fit_wf.brain_extraction_wf.norm", 4), ("bold_task_rest_run_01_wf.bold_fit_wf.hmc", 0)],
)
def test_a_crash_that_leaves_nothing_is_the_subjects(job, monkeypatch, tmp_path, node, n_finished):
    monkeypatch.setenv("STAND_IN_CODE", "1")
    made = {"sub-01/anat/sub-01_desc-preproc_T1w.nii.gz": "T1w"} | crash_of(node)
    for run in range(n_finished):
        made |= finished(f"run-0{run + 1}")
    monkeypatch.setenv("STAND_IN_WRITES", json.dumps(made))
    (tmp_path / "preproc/sub-01").mkdir(parents=True)  # of an earlier success
    (tmp_path / "preproc/logs").mkdir()
    (tmp_path / "preproc/logs/sub-01_fmriprep.log").touch()
    code, status, _ = job()
    assert (code, status["status"]) == (0, "failed")
    assert f"node {node} crashed: nibabel.filebasedimages.ImageFileError" in status["reason"]
    assert not (tmp_path / "preproc/sub-01").exists()


def test_crash_files_of_an_earlier_attempt_are_not_of_this_one(job, monkeypatch):
    monkeypatch.setenv("STAND_IN_CODE", "1")
    monkeypatch.setenv("STAND_IN_WRITES", json.dumps(crash_of("anat_fit_wf.norm")))
    assert job()[1]["status"] == "failed"
    monkeypatch.setenv("STAND_IN_CODE", "0")
    monkeypatch.setenv("STAND_IN_WRITES", "{}")
    assert job()[1]["status"] == "ok"


def test_a_report_that_was_not_made_costs_nobody_the_data(job, monkeypatch):
    monkeypatch.setenv("STAND_IN_CODE", "1")
    monkeypatch.setenv(
        "STAND_IN_SAYS",
        "fMRIPrep finished successfully!\nReport generation was not successful for the following participants : 01.",
    )
    monkeypatch.setenv("STAND_IN_WRITES", json.dumps({"sub-01/anat/sub-01_desc-preproc_T1w.nii.gz": "T1w"}))
    assert job()[1]["status"] == "ok"


def test_what_is_missing_is_said_before_a_container_starts(job, monkeypatch, tmp_path, capsys):
    for changes, meaning in (
        ({"fs_license": None}, "set preproc.fs_license"),
        ({"fs_license": str(tmp_path / "nothing")}, "there is no file"),
        ({"templateflow_home": str(tmp_path / "nothing")}, "there is no folder"),
        ({"backend": "fmriprep-apptainer"}, "neither apptainer nor singularity"),
    ):
        if changes.get("backend") and (shutil.which("apptainer") or shutil.which("singularity")):
            continue
        code, status, words = job(**changes)
        assert (code, status, words) == (1, None, None)
        assert meaning in capsys.readouterr().err
    code, status, _ = job(subject="../../etc")
    assert (code, status) == (1, None)
    assert "letters and digits" in capsys.readouterr().err


def test_apptainer_sees_only_what_is_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "_apptainer", lambda: "apptainer")
    settings = PreprocSection(
        fs_license=tmp_path / "license.txt", templateflow_home=tmp_path / "tf", image="fmriprep.sif"
    )
    folders = containers.Folders.below(tmp_path / "work")
    words = containers.apptainer_command(settings.model_dump(mode="json"), "01", folders, 8, 24000)
    assert words[:4] == ["apptainer", "run", "--cleanenv", "--containall"]
    bound = [b for a, b in pairwise(words) if a == "--bind"]
    assert f"{folders.view}:/data:ro" in bound
    assert f"{tmp_path / 'tf'}:/templateflow:ro" in bound
    assert len(bound) == 6
    image = words.index("fmriprep.sif")
    assert words[image + 1 : image + 4] == ["/data", "/out", "participant"]
    for image, named in (
        ("nipreps/fmriprep:25.2.7", "docker://nipreps/fmriprep:25.2.7"),
        ("~/fmriprep.sif", str(Path.home() / "fmriprep.sif")),
        ("oras://registry.org/fmriprep.sif", "oras://registry.org/fmriprep.sif"),
    ):
        settings = PreprocSection(fs_license=tmp_path / "license.txt", image=image).model_dump(mode="json")
        assert named in containers.apptainer_command(settings, "01", folders, 8, 24000)


def test_a_job_that_is_asked_to_end_stops_its_container_and_leaves_nothing(job, monkeypatch, tmp_path):
    monkeypatch.setenv("STAND_IN_STAYS", "1")
    container = tmp_path / "container"

    def ask():
        while not container.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(SystemExit) as ended:
        job()
    asking.join()
    assert ended.value.code == 128 + signal.SIGTERM
    assert not container.exists()
    assert [path.name for path in (tmp_path / "preproc").iterdir()] == ["logs"]
    monkeypatch.delenv("STAND_IN_STAYS")
    assert job()[1]["status"] == "ok"


def test_a_container_that_a_killed_job_left_is_stopped_first(job, tmp_path, caplog):
    work = work_folder(tmp_path / "work", "abide1", "01", tmp_path / "preproc")
    (tmp_path / "container").write_text(str(work / "scratch"))
    assert job()[1]["status"] == "ok"
    assert not (tmp_path / "container").exists()
    assert "an earlier attempt left container 0123abcd" in caplog.text


def test_a_second_start_of_one_subject_is_refused_and_changes_nothing(job, tmp_path, capsys):
    assert job()[0] == 0
    (tmp_path / "words.json").unlink()
    with only_one(tmp_path / "preproc", "01"):
        code, status, words = job()
        assert f"sub-01 is being preprocessed by process {os.getpid()} on " in capsys.readouterr().err
        assert (code, status["status"], words) == (1, "ok", None)
        assert job("02")[0] == 0
    assert job()[0] == 0
    assert [path.name for path in (tmp_path / "preproc").glob(".*")] == [".bidsignore"]


@pytest.mark.parametrize(
    "moment",
    [
        "fmriprep.publish",
        "publish.discard",
        "publish._take_place",
        "fmriprep.write_description",
        "fmriprep.write_status",
    ],
)
def test_killed_at_any_moment_nothing_counts_as_finished_and_the_next_attempt_goes_on(
    job, monkeypatch, tmp_path, moment
):
    name = "sub-01/func/sub-01_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    assert job()[0] == 0
    (tmp_path / "preproc" / name).write_bytes(b"older")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"bhx_prep.preproc.{moment}", killed)
        with pytest.raises(KeyboardInterrupt):
            job()
    assert not (tmp_path / "preproc/sub-01_status.json").exists()
    (tmp_path / "words.json").unlink()
    code, status, words = job()
    assert (code, status["status"], words) == (0, "ok", None)  # fMRIPrep itself did not run again
    assert (tmp_path / "preproc" / name).read_bytes() == b"frames"
    assert [path.name for path in (tmp_path / "preproc").glob(".*")] == [".bidsignore"]


def test_killed_while_work_files_are_removed_the_next_attempt_does_not_meet_half_of_them(
    job, monkeypatch, tmp_path
):
    remove = shutil.rmtree

    def killed(path, *args, **kwargs):
        if Path(path).name.endswith(".done") and Path(path).exists():
            raise KeyboardInterrupt
        remove(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            job()
    assert job()[1]["status"] == "ok"
    assert not list((tmp_path / "work").iterdir())


def test_killed_before_other_settings_the_next_attempt_starts_afresh(job, monkeypatch, tmp_path):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fmriprep, "write_status", killed)
        with pytest.raises(KeyboardInterrupt):
            job()
    (tmp_path / "words.json").unlink()
    work = work_folder(tmp_path / "work", "abide1", "01", tmp_path / "preproc")
    (work / "scratch/of-the-first").touch()
    monkeypatch.setenv("STAND_IN_CODE", "137")
    assert job(fmriprep_args=["--low-mem"])[2] is not None
    assert not (work / "scratch/of-the-first").exists()


@pytest.fixture
def named(tmp_path):
    """Arguments that name paths, with the paths."""
    (tmp_path / "filter.json").write_text("{}")
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "plugin.yml").write_text("")
    (tmp_path / "own.txt").write_text("somebody")
    (tmp_path / "old").mkdir()
    return (
        *("--bids-filter-file", str(tmp_path / "filter.json"), f"--config-file={tmp_path / 'config.toml'}"),
        *(
            "-d",
            f"smriprep={tmp_path / 'old'}",
            str(tmp_path / "old"),
            "--fs-subjects-dir",
            str(tmp_path / "fs"),
        ),
        *(
            "--nipype-plugin-file",
            str(tmp_path / "plugin.yml"),
            "--fs-license-file",
            str(tmp_path / "own.txt"),
        ),
    )


def test_paths_among_the_arguments_are_bound_in_docker(job, named, tmp_path):
    code, status, words = job(fmriprep_args=named)
    assert (code, status["status"]) == (0, "ok")
    bound = dict(w.removesuffix(":ro").rsplit(":", 1) for f, w in pairwise(words) if f == "-v")
    inner = words[words.index("nipreps/fmriprep:25.2.7") :]
    for option, path in (
        ("--bids-filter-file", "filter.json"),
        ("--config-file", "config.toml"),
        ("--use-plugin", "plugin.yml"),
        ("--fs-subjects-dir", "fs"),
    ):
        assert inner[inner.index(option) + 1] == bound[str(tmp_path / path)]
    derivatives = inner.index("--derivatives")
    assert inner[derivatives + 1 : derivatives + 3] == ["/deriv/smriprep", "/deriv/old"]
    assert bound[str(tmp_path / "own.txt")] == "/opt/freesurfer/license.txt"
    assert str(tmp_path / "license.txt") not in bound
    assert (tmp_path / "fs").is_dir()


def test_paths_among_the_arguments_are_bound_in_apptainer(named, tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "_apptainer", lambda: "apptainer")
    section = PreprocSection(fmriprep_args=named).model_dump(mode="json")
    folders = containers.Folders.below(tmp_path / "work")
    words = containers.apptainer_command(section, "01", folders, 8, 21000)
    bound = dict(reversed(w.removesuffix(":ro").rsplit(":", 1)) for f, w in pairwise(words) if f == "--bind")
    assert bound["/opt/freesurfer/license.txt"] == str(tmp_path / "own.txt")
    for option, path in (
        ("--bids-filter-file", "filter.json"),
        ("--config-file", "config.toml"),
        ("--use-plugin", "plugin.yml"),
        ("--fs-subjects-dir", "fs"),
    ):
        assert bound[words[words.index(option) + 1]] == str(tmp_path / path)
    first, second = (w.split("=") for w in words[words.index("--derivatives") + 1 :][:2])
    assert [bound[first[1]], bound[second[1]]] == [str(tmp_path / "old")] * 2
    assert (first[0], second[0]) == ("smriprep", "old")
    written = [w for f, w in pairwise(words) if f == "--bind" and not w.endswith(":ro")]
    assert [w.rsplit(":", 1)[1] for w in written] == ["/out", "/scratch", "/tmp", "/subjects"]


#: Writes what fMRIPrep would leave behind into what is bound at /out. A stand-in: no image is run.
APPTAINER = """#!{python}
import os, pathlib, sys
words = sys.argv[1:]
bound = dict(reversed(w.removesuffix(":ro").rsplit(":", 1)) for f, w in zip(words, words[1:]) if f == "--bind")
for inside, outside in bound.items():
    if not pathlib.Path(outside).exists():
        sys.exit(f"FATAL:   container creation failed: mount {{outside}}->{{inside}} error: mount source doesn't exist")
subject = sorted(p.name for p in pathlib.Path(bound["/data"]).glob("sub-*"))
func = pathlib.Path(bound["/out"]) / subject[0] / "func"
func.mkdir(parents=True)
(func / f"{{subject[0]}}_task-rest_desc-preproc_bold.nii.gz").write_bytes(b"frames")
"""


def test_without_a_t1w_no_container_starts_unless_its_derivatives_are_given(job, dataset, tmp_path):
    (dataset / "sub-01/anat/sub-01_T1w.nii.gz").unlink()
    code, status, words = job()
    assert (code, status["status"], words) == (0, "failed", None)
    assert status["reason"] == "there is no usable T1w image"
    (tmp_path / "old").mkdir()
    assert job(fmriprep_args=["--derivatives", f"old={tmp_path / 'old'}"])[2] is not None


@pytest.mark.parametrize("value", ["../../etc={}", "a/b={}", "={}", "a b={}"])
def test_names_of_derivatives_stay_in_their_folder(job, tmp_path, value, capsys):
    code, status, words = job(fmriprep_args=["--derivatives", value.format(tmp_path)])
    assert (code, status, words) == (1, None, None)
    assert "cannot name a folder" in capsys.readouterr().err


def test_keys_reach_the_container_with_their_paths_bound(job, tmp_path, capsys):
    (tmp_path / "freesurfer").mkdir()
    keys = {"cifti_output": "170k", "subject_anatomical_reference": "sessionwise", "level": "full"}
    code, status, words = job(fs_subjects_dir=str(tmp_path / "freesurfer"), **keys)
    assert (code, status["status"]) == (0, "ok")
    bound = dict(w.removesuffix(":ro").rsplit(":", 1) for f, w in pairwise(words) if f == "-v")
    inner = dict(pairwise(words[words.index("nipreps/fmriprep:25.2.7") :]))
    assert inner["--fs-subjects-dir"] == bound[str(tmp_path / "freesurfer")]
    assert [inner[f"--{key.replace('_', '-')}"] for key in keys] == list(keys.values())
    assert job(fs_subjects_dir=str(tmp_path / "none"))[:2] == (1, None)
    assert "which is not there" in capsys.readouterr().err


def test_apptainer_is_given_what_is_there(job, named, tmp_path, capsys):
    (tmp_path / "tools/apptainer").write_text(APPTAINER.format(python=sys.executable))
    (tmp_path / "tools/apptainer").chmod(0o755)
    (tmp_path / "fmriprep.sif").touch()
    settings = {"backend": "fmriprep-apptainer", "image": str(tmp_path / "fmriprep.sif")}
    assert job(**settings, fmriprep_args=named)[1]["status"] == "ok"
    assert len(list((tmp_path / "preproc/sub-01/func").iterdir())) == 1
    (tmp_path / "tools/apptainer").write_text(
        "#!/bin/sh\necho 'FATAL:   Unable to handle image: x'; exit 255\n"
    )
    assert job(**settings)[:2] == (1, None)
    assert "fmriprep.sif cannot be opened or fetched" in capsys.readouterr().err


def test_a_path_that_is_not_there_is_said_before_a_container_starts(job, tmp_path, capsys):
    code, status, words = job(fmriprep_args=["--bids-filter-file", str(tmp_path / "none.json")])
    assert (code, status, words) == (1, None, None)
    assert "--bids-filter-file names" in capsys.readouterr().err


@pytest.mark.parametrize(
    "bug", [ValueError("operands could not be broadcast"), KeyError("Mask"), AssertionError()]
)
def test_a_bug_stops_the_job_and_writes_no_status(job, monkeypatch, tmp_path, bug):
    def planted(*_):
        raise bug

    monkeypatch.setattr(fmriprep, "make_view", planted)
    with pytest.raises(type(bug)):
        job()
    assert not (tmp_path / "preproc/sub-01_status.json").exists()


def test_a_view_shows_what_the_index_calls_usable(dataset, tmp_path):
    func, anat = dataset / "sub-01/func", dataset / "sub-01/anat"
    for name in (
        "task-rest_run-2_bold.nii.gz",
        "task-rest_run-2_sbref.nii.gz",
        "task-rest_run-2_events.tsv",
        "task-rest_run-1_sbref.nii.gz",
        "task-rest_acq-me_echo-1_bold.nii.gz",
        "task-rest_acq-me_echo-2_bold.nii.gz",
        "task-rest_acq-me_echo-2_part-phase_bold.nii.gz",
    ):
        (func / f"sub-01_{name}").write_text(name)
    (anat / "sub-01_part-phase_T1w.nii.gz").write_text("phase")
    scans = [
        UsableScan(anat / "sub-01_T1w.nii.gz"),
        UsableScan(func / "sub-01_task-rest_run-2_bold.nii.gz", 1.5),
        UsableScan(func / "sub-01_task-rest_acq-me_echo-1_bold.nii.gz", 2.0, 2),
    ]
    view = make_view(dataset, "01", ["rest"], tmp_path / "view", scans)
    assert sorted(
        p.name.removeprefix("sub-01_") for p in view.glob("sub-01/[af]*/*") if "fmap" not in p.parts
    ) == [
        "T1w.nii.gz",
        "task-rest_acq-me_echo-1_bold.nii.gz",
        "task-rest_acq-me_echo-2_bold.nii.gz",
        "task-rest_run-2_bold.json",  # the repetition time that was decided
        "task-rest_run-2_bold.nii.gz",
        "task-rest_run-2_events.tsv",
        "task-rest_run-2_sbref.nii.gz",
    ]
    own = json.loads((view / "sub-01/func/sub-01_task-rest_run-2_bold.json").read_text())
    assert own["RepetitionTime"] == 1.5
    assert not (func / "sub-01_task-rest_run-2_bold.json").exists()


def test_every_echo_has_the_repetition_time_that_was_decided(dataset, tmp_path):
    func = dataset / "sub-01/func"
    for echo in "12":
        (func / f"sub-01_task-rest_echo-{echo}_bold.nii.gz").write_bytes(b"x")
        (func / f"sub-01_task-rest_echo-{echo}_bold.json").write_text(f'{{"EchoTime": 0.0{echo}}}')
    scan = UsableScan(func / "sub-01_task-rest_echo-1_bold.nii.gz", 1.5, 2)
    view = make_view(dataset, "01", ["rest"], tmp_path / "view", [scan])
    for echo in "12":
        own = json.loads((view / f"sub-01/func/sub-01_task-rest_echo-{echo}_bold.json").read_text())
        assert own == {"RepetitionTime": 1.5, "EchoTime": float(f"0.0{echo}")}
