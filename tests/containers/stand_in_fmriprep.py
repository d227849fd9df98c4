"""In fMRIPrep's place, in a container: nipype runs a workflow with its names, and the subject's label says what fails.

A stand-in: it touches no brain. What it prints and leaves behind when something fails is nipype's, Python's and the
kernel's, as with fMRIPrep itself, whose `run` this follows (`fmriprep/cli/run.py`).
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

OUT = Path("/out")
RUN = "20261127-060000_7d7c8a68-fded-42f9-a54d-f8b8cfff4298"


def write(out, names, after=0):
    """Leave what a finished part of fMRIPrep leaves."""
    import pathlib

    for name in names:
        path = pathlib.Path(out) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"made")


def corrupt():
    """Read an image that ends in the middle."""
    import gzip
    import pathlib

    import nibabel as nib
    import numpy as np

    frames = np.random.default_rng(0).normal(size=(8, 8, 8, 9)).astype(np.float32)
    nib.Nifti1Image(frames, np.eye(4)).to_filename("whole.nii")
    packed = gzip.compress(pathlib.Path("whole.nii").read_bytes())
    pathlib.Path("half.nii.gz").write_bytes(packed[: len(packed) // 2])
    nib.load("half.nii.gz").get_fdata()


def killed():
    """End as a process does that the kernel kills for its memory."""
    import os
    import signal
    import time

    time.sleep(2)
    os.kill(os.getpid(), signal.SIGKILL)


def greedy():
    """Ask for more memory than there is."""
    import resource

    import numpy as np

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    np.ones((64, 1024, 1024, 1024), np.float32)


def filling():
    """Write until the disk is full."""
    import pathlib

    with pathlib.Path("large.nii").open("wb") as file:
        while True:
            file.write(b"0" * (1 << 20))
            file.flush()


def no_quota():
    """Write beyond a quota: disks without one cannot do that, so the error is raised as the system words it."""
    import errno
    import os

    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/out/sub-quota/anat/x.nii.gz")


def fast():
    """End before the other node is killed."""
    return 0


def slow(after):
    """Last until the other node has been killed: only a job that is given to a broken pool finds it broken."""
    import time

    time.sleep(4)
    return after


#: Label to the function of the node that fails.
FUNCTIONS = {
    "corrupt": corrupt,
    "pool": killed,
    "greedy": greedy,
    "filling": filling,
    "quota": no_quota,
}


def program(name, script):
    """A program in PATH, in the place of one of the image's."""
    tools = Path("/tmp/tools")
    tools.mkdir(exist_ok=True)
    (tools / name).write_text(f"#!/bin/sh\n{script}\n")
    (tools / name).chmod(0o755)
    os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"


def node_of_program(words, name):
    """A node that starts a program."""
    from nipype.interfaces.base import CommandLine
    from nipype.pipeline import engine as pe

    return pe.Node(CommandLine(command=words), name=name)


def workflow(label):
    """FMRIPrep's names around the node that fails, and nodes that leave what finishes."""
    from nipype.interfaces.utility import Function
    from nipype.pipeline import engine as pe

    def function(call, name, **inputs):
        node = pe.Node(Function(function=call), name=name)
        for key, value in inputs.items():
            setattr(node.inputs, key, value)
        return node

    subject = pe.Workflow(name=f"sub_{label}_wf")
    anat = pe.Workflow(name="anat_fit_wf")
    made = function(
        write, "ds_t1w", out=str(OUT), names=[f"sub-{label}/anat/sub-{label}_desc-preproc_T1w.nii.gz"]
    )
    anat.add_nodes([made])
    if label == "pool":
        first = pe.Node(Function(function=fast, output_names=["out"]), name="fast")
        waits = pe.Node(
            Function(function=slow, output_names=["out"]), name="slow", run_without_submitting=True
        )
        anat.connect([(first, waits, [("out", "after")]), (waits, made, [("out", "after")])])
    if label == "registration":
        program(
            "antsRegistration",
            'echo "Exception caught: itk::ERROR: MattesMutualInformation: All samples map outside moving image buffer" >&2\n'
            "exit 1",
        )
        norm = node_of_program("antsRegistration --dimensionality 3", "registration")
        registration = pe.Workflow(name="register_template_wf")
        registration.add_nodes([norm])
        anat.add_nodes([registration])
    elif label == "recon":
        program(
            "recon-all",
            'echo "ERROR: Talairach failed!"\necho "recon-all -s sub-recon exited with ERRORS"\nexit 1',
        )
        anat.add_nodes([node_of_program("recon-all -autorecon1", "autorecon1")])
    elif label == "program":
        anat.add_nodes([node_of_program("c3d_affine_tool -ref x", "lta2itk")])
    elif label == "library":
        program(
            "mri_robust_register",
            'echo "mri_robust_register: error while loading shared libraries: libquadmath.so.0: cannot open" >&2\nexit 127',
        )
        anat.add_nodes([node_of_program("mri_robust_register", "robust")])
    elif label in FUNCTIONS:
        anat.add_nodes([function(FUNCTIONS[label], "t1w_conform")])
    subject.add_nodes([anat])
    for path in sorted(Path(f"/data/sub-{label}").glob("func/*_bold.nii.gz")):
        stem = path.name.removesuffix("_bold.nii.gz")
        inner = re.sub("[-+]", "_", "_".join(stem.split("_")[1:]))
        bold = pe.Workflow(name=f"bold_{inner}_wf")
        fit = pe.Workflow(name="bold_fit_wf")
        if label == "onerun" and "run-4" in stem:
            fit.add_nodes([function(corrupt, "hmc")])
        else:
            names = [
                f"sub-{label}/func/{stem}_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz",
                f"sub-{label}/func/{stem}_desc-confounds_timeseries.tsv",
            ]
            fit.add_nodes([function(write, "ds_bold", out=str(OUT), names=names)])
        bold.add_nodes([fit])
        subject.add_nodes([bold])
    whole = pe.Workflow(name="fmriprep_25_2_wf", base_dir="/scratch")
    whole.add_nodes([subject])
    return whole


def sees(words):
    """Which paths among the arguments are not there, which can be written to, and what TemplateFlow is told."""
    paths = [word.rpartition("=")[2] for word in words]
    paths = [path for path in paths if path.startswith("/")]
    writable = []
    for path in paths:
        probe = Path(path) / "probe"
        try:
            probe.touch()
        except OSError:
            continue
        probe.unlink()
        writable.append(path)
    return {
        "words": words,
        "absent": [path for path in paths if not Path(path).exists()],
        "writable": writable,
        "subjects": sorted(path.name for path in Path("/data").glob("sub-*")),
        "templates": (Path(os.environ.get("TEMPLATEFLOW_HOME", "/none")) / "tpl-OASIS30ANTs").is_dir(),
        "autoupdate": os.environ.get("TEMPLATEFLOW_AUTOUPDATE"),
        "folder": str(Path.cwd()),
    }


def main():
    """Run as `fmriprep.cli.run.main` does, from where its workflow is built."""
    words = sys.argv[1:]
    label = words[words.index("--participant-label") + 1]
    (OUT / "sees.json").write_text(json.dumps(sees(words)))
    signal.alarm(120)  # nothing hangs for longer
    if label == "waits":
        (OUT / "ready").touch()
        time.sleep(600)
    from nipype import config, logging

    crashes = OUT / f"sub-{label}" / "log" / RUN
    crashes.mkdir(parents=True, exist_ok=True)
    config.update_config(
        {
            "logging": {"log_to_file": "false"},
            "execution": {
                "crashdump_dir": str(crashes),
                "crashfile_format": "txt",
                "check_version": "false",
                "stop_on_first_crash": "false",
                "get_linked_libs": "false",
                "raise_insufficient": "false",
            },
        }
    )
    logger = logging.getLogger("nipype.workflow")
    pooled = label == "pool"
    try:
        workflow(label).run("MultiProc" if pooled else "Linear", plugin_args={"n_procs": 2} if pooled else {})
    except Exception as error:
        logger.critical("fMRIPrep failed: %s", error)
        raise
    (OUT / "dataset_description.json").write_text("{}")
    print("fMRIPrep finished successfully!")


if __name__ == "__main__":
    main()
