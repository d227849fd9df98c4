"""A real container behind `fmriprep-docker`: mounts, user, network and exit codes are podman's, only the image is ours.

The image is a stand-in of one static program (busybox) and a script in fMRIPrep's place. It runs where podman, crun and
busybox are, as root: Debian's packages podman, crun and busybox-static.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from settings_files import settings_file

from bhx_prep.config.preproc import PreprocSection
from bhx_prep.preproc import fmriprep

IMAGE = "docker.io/nipreps/fmriprep:25.2.7"

#: In fMRIPrep's place: says what it sees, tries to write where it must not, leaves a derivative behind.
ENTRY = """#!/bin/sh
echo "arguments: $*"
echo "user: $(id -u)"
echo "interfaces: $(ls /sys/class/net | tr '\\n' ' ')"
echo "subjects: $(ls /data | grep sub-)"
touch /data/x 2>/dev/null && echo "the dataset could be written"
[ -s /opt/freesurfer/license.txt ] || exit 3
mkdir -p /out/sub-01/func
cp /data/sub-01/func/sub-01_task-rest_bold.nii.gz /out/sub-01/func/sub-01_task-rest_desc-preproc_bold.nii.gz
echo '{}' > /out/dataset_description.json
"""

#: podman under docker's name, on machines whose cgroups a container may not touch.
DOCKER = """#!/bin/bash
P="podman --root {state}/root --runroot {state}/run --storage-driver vfs --cgroup-manager cgroupfs"
case "$1" in
  version) echo 28.0.0 ;;
  run) shift; export P; exec unshare -m bash -c 'umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
    exec $P run --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --cgroups=disabled --runtime crun "$@"' _ "$@" ;;
  *) exec $P "$@" ;;
esac
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """`docker` in PATH that starts real containers, with the stand-in image loaded."""
    missing = [name for name in ("podman", "crun", "busybox") if shutil.which(name) is None]
    if missing or os.getuid() != 0:
        pytest.skip(f"no containers here: {', '.join(missing) or 'root is needed'}")
    state = Path(tempfile.mkdtemp(prefix="bhx-"))  # podman takes short names only
    tools, root = tmp_path / "tools", tmp_path / "rootfs"
    for folder in (tools, root / "bin", root / "usr/local/bin", root / "tmp", root / "opt/freesurfer"):
        folder.mkdir(parents=True)
    shutil.copyfile(shutil.which("busybox"), root / "bin/busybox")
    (root / "usr/local/bin/fmriprep").write_text(ENTRY)
    for name in ("sh", "free", "id", "ls", "tr", "grep", "touch", "mkdir", "cp", "echo", "[", "cat"):
        (root / "bin" / name).symlink_to("busybox")
    for program in (root / "bin/busybox", root / "usr/local/bin/fmriprep"):
        program.chmod(0o755)
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        tar.add(root, ".")
    (tools / "docker").write_text(DOCKER.format(state=state))
    (tools / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    load = [
        "import",
        "--change",
        'ENTRYPOINT ["/usr/local/bin/fmriprep"]',
        str(tmp_path / "image.tar"),
        IMAGE,
    ]
    for words in (load, ["run", "--rm", "--network=none", "--entrypoint=free", IMAGE, "-m"]):
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"containers do not start here: {done.stderr.strip().splitlines()[-1:]}")
    yield
    subprocess.run([str(tools / "docker"), "system", "reset", "--force"], check=False, capture_output=True)
    shutil.rmtree(state, ignore_errors=True)


def test_a_subject_goes_through_a_real_container(docker, tmp_path: Path):
    raw = tmp_path / "raw"
    for subject in ("01", "02"):
        path = raw / f"sub-{subject}/func/sub-{subject}_task-rest_bold.nii.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"frames of " + subject.encode())
    (raw / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    usable = {"01": [["sub-01/func/sub-01_task-rest_bold.nii.gz", None, None]]}
    (tmp_path / "abide1.json").write_text(json.dumps({"scans": usable}))
    (tmp_path / "license.txt").write_text("nobody\n")
    (tmp_path / "templates").mkdir()
    settings = PreprocSection(
        backend="fmriprep-docker",
        image=IMAGE,
        fs_license=tmp_path / "license.txt",
        templateflow_home=tmp_path / "templates",
    ).model_dump(mode="json")
    out = tmp_path / "preproc"
    words = [
        "--subject",
        "01",
        "--cohort",
        "abide1",
        "--root",
        str(raw),
        "--tasks",
        "rest",
        "--out",
        str(out),
    ]
    words += [
        "--scans",
        str(tmp_path / "abide1.json"),
        "--preproc",
        settings_file(settings),
        "--status",
        str(out / "sub-01_status.json"),
        "--work",
        str(tmp_path / "work"),
    ]
    assert fmriprep.main(words) == 0
    said = (out / "logs/sub-01_fmriprep.log").read_text()
    status = json.loads((out / "sub-01_status.json").read_text())
    assert status["status"] == "ok", said
    assert "arguments: /data /out participant --participant-label 01" in said
    assert "subjects: sub-01\n" in said
    assert "interfaces: lo \n" in said
    assert "could be written" not in said
    made = out / "sub-01/func/sub-01_task-rest_desc-preproc_bold.nii.gz"
    assert made.read_bytes() == b"frames of 01"
    assert made.stat().st_uid == os.getuid()
