"""Real containers: podman under docker's name, started by the real `fmriprep-docker`, on images that are made here.

An image has the one program of Debian's package busybox-static; this machine's Python and the environment that has fMRIPrep
are mounted into it, which is faster than copying them. Two images differ in what they start: fMRIPrep itself, and a
stand-in for it (`stand_in_fmriprep.py`) that provokes the faults which take hours or a broken machine.

The short tests run wherever podman, crun and busybox are, as root; those that provoke faults want fMRIPrep, too, and run
by `tests/containers/run`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import own_cgroups

from bhx_prep.config.fmriprep_parser import fmriprep_python

HERE = Path(__file__).parent

#: The image of which the project's own is a stand-in: `docker.io/` is podman's way to say that no registry is guessed.
NAME = "docker.io/nipreps/fmriprep"
REAL, STAND_IN, BARE = f"{NAME}:25.2.7", f"{NAME}:25.2.7-stand-in", f"{NAME}:25.2.7-bare"
#: Images that are not there, have no fMRIPrep, or are for another kind of processor.
ABSENT, EMPTY, FOREIGN = f"{NAME}:25.2.6", f"{NAME}:25.2.7-empty", f"{NAME}:25.2.7-foreign"

#: podman under docker's name. `options` hold for every container: what it sees of this machine, and that there is no
#: network.
DOCKER = """#!/bin/bash
P="podman --root {state}/root --runroot {state}/run --tmpdir {state}/tmp --storage-driver vfs --cgroup-manager cgroupfs"
case "$1" in
  version) echo 28.0.0 ;;
  run) shift
    [[ " $* " == *" --network=none "* ]] || set -- --network=none "$@"
    exec {start} $P run --runtime crun {options} "$@" ;;
  *) exec $P "$@" ;;
esac
"""

#: In fMRIPrep's place where only mounts, user and network are looked at.
SAYS_WHAT_IT_SEES = """#!/bin/sh
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

#: As of fMRIPrep's image.
ENVIRONMENT = (
    ("HOME", "/home/fmriprep"),
    ("FREESURFER_HOME", "/opt/freesurfer"),
    ("SUBJECTS_DIR", "/opt/freesurfer/subjects"),
    ("FSLDIR", "/opt/fsl"),
    ("IS_DOCKER_8395080871", "1"),
    ("PATH", "/bin:/usr/bin"),
    ("OMP_NUM_THREADS", "1"),
    ("NO_ET", "1"),
)

#: In the place of FreeSurfer's program that fMRIPrep starts to see whether the licence is one.
MRI_CONVERT = """#!/bin/sh
grep -q somebody "$FS_LICENSE" && exit 0
echo "ERROR: Invalid FreeSurfer license key found in license file $FS_LICENSE"
exit 1
"""
#: The head of a program for IBM's mainframes.
FOREIGN_PROGRAM = b"\x7fELF\x02\x02\x01" + bytes(9) + b"\x00\x02\x00\x16\x00\x00\x00\x01" + bytes(100)
PROGRAMS = ("sh", "free", "id", "ls", "tr", "grep", "touch", "mkdir", "cp", "echo", "[", "cat", "kill", "env")


def why_not() -> str | None:
    """Why there are no containers on this machine; None where there are."""
    missing = [name for name in ("podman", "crun", "busybox") if shutil.which(name) is None]
    missing += ["root"] if os.getuid() != 0 else []
    return f"no containers here without {', '.join(missing)} (tests/containers/run)" if missing else None


@contextmanager
def running() -> Iterator[Path]:
    """Folder with a `docker` that starts real containers, and the images.

    Raises
    ------
    RuntimeError
        If containers do not start.
    """
    state = Path(tempfile.mkdtemp(prefix="bhx-"))  # podman takes short names only
    tools = state / "tools"
    tools.mkdir()
    python = fmriprep_python()
    options = " ".join([*own_cgroups.OPTIONS, _mounted(python)])
    (tools / "docker").write_text(
        DOCKER.format(state=state, start=shlex.join(own_cgroups.START), options=options)
    )
    (tools / "docker").chmod(0o755)
    archive = _archive(state)
    fmriprep_itself = str(Path(python).parent / "fmriprep") if python else "/bin/false"
    entries = {
        BARE: ["/opt/fmriprep"],
        REAL: [fmriprep_itself],
        EMPTY: ["fmriprep"],
        FOREIGN: ["/bin/foreign"],
        STAND_IN: [python or "/bin/false", str(HERE / "stand_in_fmriprep.py")],
    }
    try:
        for image, words in entries.items():
            lines = [
                f"ENTRYPOINT {json.dumps(words)}",
                *(f"ENV {name}={value}" for name, value in ENVIRONMENT),
            ]
            changes = [word for line in lines for word in ("--change", line)]
            _docker(tools, "import", *changes, str(archive), image)
        _docker(tools, "run", "--rm", "--network=none", "--entrypoint=free", BARE, "-m")
        yield tools
    finally:
        subprocess.run([tools / "docker", "system", "reset", "--force"], check=False, capture_output=True)
        shutil.rmtree(state, ignore_errors=True)


def _docker(tools: Path, *words: str) -> None:
    done = subprocess.run([tools / "docker", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"containers do not start here: {done.stderr.strip().splitlines()[-1:]}"
        raise RuntimeError(msg)


def _mounted(python: str | None) -> str:
    """Options that show a container this machine's programs, Python, and the environment with fMRIPrep."""
    if python is None:
        return ""
    asked = "import sys; print(sys.prefix, sys.base_prefix)"
    said = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout
    return " ".join(
        f"-v {folder}:{folder}:ro" for folder in dict.fromkeys(["/usr", str(HERE), *said.split()])
    )


def _archive(state: Path) -> Path:
    """The root file system of the images: busybox, and folders to mount into."""
    root = state / "rootfs"
    for name in ("bin", "etc", "tmp", "usr", "home/fmriprep", "opt/freesurfer/subjects", "opt/fsl/etc"):
        (root / name).mkdir(parents=True)
    for name in ("lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0::/home/fmriprep:/bin/sh\n")
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copyfile(busybox, root / "bin/busybox")
    (root / "opt/fmriprep").write_text(SAYS_WHAT_IT_SEES)
    (root / "opt/fmriprep").chmod(0o755)
    (root / "bin/mri_convert").write_text(MRI_CONVERT)
    (root / "opt/freesurfer/build-stamp.txt").write_text(
        "freesurfer-linux-ubuntu22_x86_64-7.3.2-20220804-6354275\n"
    )
    (root / "opt/fsl/etc/fslversion").write_text("6.0.7\n")
    (root / "bin/foreign").write_bytes(FOREIGN_PROGRAM)
    for name in PROGRAMS:
        (root / "bin" / name).symlink_to("busybox")
    for name in ("busybox", "mri_convert", "foreign"):
        (root / "bin" / name).chmod(0o755)
    with tarfile.open(state / "image.tar", "w") as tar:
        tar.add(root, ".")
    return state / "image.tar"
