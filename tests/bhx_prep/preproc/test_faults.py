"""The table of faults, in the words of the programs themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bhx_prep.preproc.crash_files import Crash, read_crash, workflow_of
from bhx_prep.preproc.faults import TABLE, recognise

IMAGE = "nipreps/fmriprep:25.2.7"

SITE = [
    # docker and its wrapper
    (1, "fmriprep: Could not find docker command... Is it installed?", "docker is not installed"),
    (1, "fmriprep: Make sure you have permission to run 'docker'", "may not be used by this account"),
    (
        1,
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: Get "
        '"http://%2Fvar%2Frun%2Fdocker.sock/v1.24/info": dial unix /var/run/docker.sock: connect: permission denied',
        "may not be used by this account",
    ),
    (
        1,
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"
        "Could not detect memory capacity of Docker container.\nDo you have permission to run docker?",
        "daemon cannot be reached",
    ),
    (
        125,
        "Unable to find image 'nipreps/fmriprep:99' locally\ndocker: Error response from daemon: manifest for "
        "nipreps/fmriprep:99 not found: manifest unknown: manifest unknown.",
        "docker pull nipreps/fmriprep",
    ),
    (
        125,
        'docker: Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp: lookup '
        "registry-1.docker.io: no such host.",
        "could not be fetched",
    ),
    (
        125,
        'docker: Error response from daemon: invalid mount config for type "bind": bind source path does not exist: /x.',
        "cannot be mounted",
    ),
    (
        125,
        "docker: Error response from daemon: something new.",
        "could not start the container: docker: Error",
    ),
    (125, 'Error: short-name "nipreps/x" did not resolve to an alias', "could not be fetched"),
    (126, "exec /opt/conda/bin/fmriprep: exec format error", "another kind of processor"),
    (
        1,
        '{"msg":"exec container process `/opt/conda/bin/fmriprep`: Exec format error","level":"error"}',
        "another kind of processor",
    ),
    (1, "Could not detect memory capacity of Docker container.", "docker does not say how much memory"),
    (  # podman's words without a network, and what fmriprep-docker makes of them
        1,
        "Downloading. This may take a while...\nError: initializing source docker://nipreps/fmriprep:25.2.7: pinging "
        'container registry registry-1.docker.io: Get "https://registry-1.docker.io/v2/": dial tcp: no such host\n'
        "Could not detect memory capacity of Docker container.\nDo you have permission to run docker?",
        "docker pull nipreps/fmriprep",
    ),
    (
        127,
        'docker: Error response from daemon: OCI runtime create failed: runc create failed: exec: "fmriprep": executable '
        "file not found in $PATH: unknown.",
        "has no fmriprep to run",
    ),
    (1, "ERROR: permission denied while trying to connect to the docker API at unix:///x", "by this account"),
    (1, "docker: Error response from daemon: net/http: TLS handshake timeout.", "could not be fetched"),
    (1, "docker: no matching manifest for linux/arm64/v8 in the manifest list entries.", "kind of processor"),
    (126, "Error: crun: setrlimit `RLIMIT_NPROC`: Operation not permitted", "docker could not start"),
    # apptainer
    (
        255,
        "FATAL:   could not open image /images/fmriprep.sif: failed to retrieve path for /images/fmriprep.sif: lstat "
        "/images/fmriprep.sif: no such file or directory",
        "cannot be opened or fetched",
    ),
    (
        255,
        "FATAL:   Unable to handle docker://nipreps/fmriprep:25.2.7 uri: failed to get checksum for docker://: pinging "
        "container registry registry-1.docker.io: dial tcp: lookup registry-1.docker.io",
        "fetched",
    ),
    (
        255,
        "FATAL:   While making image from oci registry: error fetching image to cache: while building SIF from layers: "
        "write /tmp/build-temp-1/rootfs/x: no space left on device",
        "the disk is full while the image",
    ),
    (
        255,
        "FATAL:   container creation failed: mount hook function failure: mount /data->/data error: while mounting /data: "
        "mount source /data doesn't exist",
        "cannot be mounted",
    ),
    (255, "ERROR  : Could not create user namespace: Permission denied", "user namespaces"),
    (
        255,
        "FATAL:   container creation failed: mount hook function failure: mount /proc/self/fd/3->/rootfs error: while "
        "mounting image /proc/self/fd/3: kernel reported a bad superblock for squashfs image partition",
        "cannot be opened",
    ),
    (255, "ERROR  : Failed to create user namespace: maximum number exceeded", "user namespaces"),
    (255, "ERROR:   No runscript and no /bin/sh executable found in container, aborting", "has no fmriprep"),
    (127, "/.singularity.d/runscript: 3: exec: /opt/conda/bin/fmriprep: not found", "has no fmriprep"),
    (
        255,
        "FATAL:   while extracting /i.sif: root filesystem extraction failed: Write failed because No space left on device",
        "the disk is full while the image",
    ),
    # fMRIPrep's arguments
    (2, "usage: fmriprep [-h]\nfmriprep: error: unrecognized arguments: --use-aroma", "--use-aroma"),
    (
        2,
        "fmriprep: error: argument --cifti-output: invalid choice: '32k' (choose from 91k, 170k)",
        "correct preproc.fmriprep_args",
    ),
    (
        1,
        'Traceback (most recent call last):\nValueError: space identifier "Schaefer" is invalid.\nValid identifiers are: x',
        "preproc.output_spaces",
    ),
    (
        1,
        'ValueError: standard space "MNIInfant" is not fully defined.\nSet a valid cohort selector',
        "output_spaces",
    ),
    (
        1,
        "    raise RuntimeError('Custom template %s requires a `tpl-` prefix' % tpl)\n"
        "RuntimeError: Custom template Schaefer requires a `tpl-` prefix",
        "(RuntimeError: Custom template Schaefer requires",
    ),
    # licence
    (
        126,
        "ERROR: a valid license file is required for FreeSurfer to run. fMRIPrep looked for an existing license file at",
        "licence file",
    ),
    (1, "ERROR: FreeSurfer license file /opt/freesurfer/license.txt not found.", "licence file"),
    (1, "ERROR: license file /opt/freesurfer/license.txt has expired", "licence file"),
    (1, "ERROR: crypt() returned null with 4-line file", "licence file"),
    # disks, limits
    (1, "sqlite3.OperationalError: database or disk is full", "the disk is full"),
    (1, "OSError: 1048576 requested and 0 written", "the disk is full"),
    (1, "** ERROR: nifti_image_write_bricks failed: disk full?", "the disk is full"),
    (1, "sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database is locked", "database"),
    (1, "filelock._error.Timeout: The file lock '/x.lock' could not be acquired.", "without locks"),
    (1, "cp: error writing '/out/x': Input/output error", "the file system failed"),
    (1, "OSError: [Errno 108] Cannot send after transport endpoint shutdown", "the file system failed"),
    (1, "OSError: [Errno 27] File too large", "ulimit -f"),
    (1, "RuntimeError: subprocess exited with code 135.", "in memory, as where a disk is full"),
    (1, "EOFError: Ran out of input", "remove the subject's work folder"),
    (1, "FileNotFoundError: /scratch/x/result__sampler1.pklz", "remove the subject's work folder"),
    (1, "libgomp: Thread creation failed: Resource temporarily unavailable", "more processes"),
    (1, "slurmstepd: error: *** JOB 1 ON n1 CANCELLED AT 2026 DUE TO TIME LIMIT ***", "from outside"),
    (1, "RuntimeError: subprocess exited with code -15.", "stopped from outside"),
    (1, "=>> PBS: job killed: walltime 3601 exceeded limit 3600", "stopped from outside"),
    (1, "OSError: [Errno 28] No space left on device: '/scratch/x'", "the disk is full"),
    (1, "gzip: stdout: No space left on device", "the disk is full"),
    (1, "OSError: [Errno 122] Disk quota exceeded: '/out/x'", "the quota is used up"),
    (1, "PermissionError: [Errno 13] Permission denied: '/out/sub-01'", "may not be read or written"),
    (1, "OSError: [Errno 30] Read-only file system: '/out/logs'", "read-only"),
    (1, "OSError: [Errno 116] Stale file handle: '/scratch/x'", "the file system failed"),
    (1, "RuntimeError: can't start new thread", "more processes"),
    # TemplateFlow
    (
        1,
        "Downloading https://templateflow.s3.amazonaws.com/tpl-OASIS30ANTs/tpl-OASIS30ANTs_res-01_T1w.nii.gz\n"
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='templateflow.s3.amazonaws.com', port=443): Max "
        "retries exceeded with url: /tpl-OASIS30ANTs/tpl-OASIS30ANTs_res-01_T1w.nii.gz",
        "fill preproc.templateflow_home",
    ),
    (
        1,
        "RuntimeError: Failed to download https://templateflow.s3.amazonaws.com/tpl-x with status code 404",
        "fill preproc.templateflow_home",
    ),
    (
        1,
        "nibabel.filebasedimages.ImageFileError: Empty file: '/templateflow/tpl-PNC/tpl-PNC_res-01_T1w.nii.gz'",
        "missing or broken",
    ),
    (1, "urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>", "templateflow_home"),
    (1, "ConnectionRefusedError: [Errno 111] Connection refused", "templateflow_home"),
    (1, "http.client.RemoteDisconnected: Remote end closed connection without response", "templateflow_home"),
    # programs
    (1, "ERROR: FreeSurfer environment FREESURFER_HOME is not defined.", "lacks a program"),
    (1, "/bin/sh: 1: bids-validator: not found", "lacks a program"),
    (
        127,
        "Cannot run fMRIPrep. Missing dependencies:\n\t* c3d_affine_tool (Interface: C3dAffineTool)",
        "lacks a program",
    ),
    (1, 'OSError: No command "antsRegistration" found on host n1. Please check that the', "lacks a program"),
    (1, "FileNotFoundError: [Errno 2] No such file or directory: 'mri_convert'", "lacks a program"),
    (
        1,
        "traits.trait_errors.TraitError: The 'freesurfer_home' trait of a _BIDSFreeSurferDirInputSpec instance must be a "
        "pathlike object or string representing an existing directory, but a value of 'None' <class 'str'> was specified.",
        "lacks a program",
    ),
    (1, "ERROR: it appears that recon-all is already running", "IsRunning"),
    (1, "RuntimeError: subprocess exited with code 132.", "lacks instructions"),
    (1, "qemu: uncaught target signal 11 (Segmentation fault) - core dumped", "lacks instructions"),
    (143, "", "stopped from outside"),
    (1, "=>> PBS: job killed: cput 3601 exceeded limit 3600", "stopped from outside"),
    (1, "TERM_OWNER: job killed by owner.", "stopped from outside"),
    (1, "job 123 exceeded hard wallclock time - initiate terminate method", "stopped from outside"),
    # what fMRIPrep makes of an exception that ends it
    (1, "\t fMRIPrep failed: [Errno 13] Permission denied", "may not be read or written"),
    (1, "\t fMRIPrep failed: [Errno 30] Read-only file system: '/out/logs'", "read-only"),
    (
        1,
        "\t fMRIPrep failed: HTTPSConnectionPool(host='templateflow.s3.amazonaws.com', port=443): Max retries exceeded",
        "fill preproc.templateflow_home",
    ),
    (
        1,
        "FileNotFoundError: No such file or directory '[]' for output 'brain_mask' of a TemplateFlowSelect interface",
        "missing or broken",
    ),
    (
        1,
        "AttributeError: Can't get attribute 'ValidateImage' on <module 'niworkflows.interfaces.images'>",
        "release",
    ),
    (
        1,
        "FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp', '/var/tmp']",
        "may not be read or written",
    ),
]

#: What only a node's crash tells: in a log, harmless warnings use such words too.
SITE_OF_NODES = [
    (
        "itk::ERROR: NiftiImageIO(0x1): ERROR: nifti library failed to write image: /scratch/x.nii.gz",
        "write a file",
    ),
    ("** ERROR: cannot open output file '/scratch/a.nii.gz'", "write a file"),
    (
        "mghWrite(/out/sourcedata/freesurfer/sub-01/mri/T1.mgz): could not open file for writing",
        "write a file",
    ),
    ("ERROR: MRISwrite(/out/surf/lh.white): could not write file", "write a file"),
    ("mkdir: cannot create directory '/out/sourcedata': File exists", "write a file"),
    ("KeyError: 'getpwuid(): uid not found: 1002'", "lacks an account"),
    ("KeyError: 'FREESURFER_HOME'", "lacks an account"),
    (
        "ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88",
        "lacks a program or library",
    ),
]

MEMORY = [
    (137, ""),
    (-9, ""),
    (
        1,
        "concurrent.futures.process.BrokenProcessPool: A process in the process pool was terminated abruptly while the "
        "future was running or pending.",
    ),
    (1, "fMRIPrep failed: A child process terminated abruptly, the process pool is not usable anymore"),
    (1, "[1.2] Memory cgroup out of memory: Killed process 11189 (fmriprep) total-vm:1kB"),
    (1, "[1.2] Out of memory: Kill process 11189 (fmriprep) score 135 or sacrifice child"),
    (
        1,
        "slurmstepd: error: Detected 1 oom_kill event in StepId=11300781.0. Some of the step tasks have been OOM Killed.",
    ),
    (1, "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=191.batch cgroup."),
    (1, "slurmstepd: error: Job 21317317 exceeded memory limit (26395460 > 25165824), being killed"),
    (1, "OSError: [Errno 12] Cannot allocate memory"),
    (1, "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 3.2 GiB for an array with shape (1,)"),
    (1, "terminate called after throwing an instance of 'std::bad_alloc'"),
    (1, "Killed"),
    (1, "=>> PBS: job killed: mem 26395460kb exceeded limit 25165824kb"),
    (1, "TERM_MEMLIMIT: job killed after reaching LSF memory usage limit."),
    (1, "subprocess.CalledProcessError: Command 'recon-all' died with <Signals.SIGKILL: 9>."),
    (1, "container died with exit status 137"),
    (1, "Command exited with exit code: 137"),
    (1, "java.lang.OutOfMemoryError: Java heap space"),
    (1, "slurmstepd: error: Step 123.0 exceeded virtual memory limit (26395460 > 25165824), being killed"),
    (1, "Job has gone over cgroup memory limit of 24000 megabytes. Last measured usage: 25000 megabytes."),
    (1, 'job 123 exceeds job hard limit "h_vmem" of queue "all.q" (25.1G > limit:24G)'),
    (1, "ERROR: out of memory"),
    (1, "ERROR: calloc failed for 256 voxels"),
    (1, "virtual memory exhausted"),
]

#: What images explain of a node that crashed, and what nothing explains.
OF_DATA = [
    "EOFError: Compressed file ended before the end-of-stream marker was reached",
    "zlib.error: Error -3 while decompressing data: invalid block type",
    "OSError: Expected 2097152 bytes, got 1024 bytes from object",
    "nibabel.spatialimages.HeaderDataError: data dtype not recognized",
    "numpy.linalg.LinAlgError: SVD did not converge",
    "RuntimeError: no voxels are in the mask",
    "nilearn.exceptions.DimensionError: Input data has incompatible dimensionality: you provided a 3D image",
    "numpy.exceptions.AxisError: axis 3 is out of bounds for array of dimension 3",
    'nibabel.filebasedimages.ImageFileError: Cannot work out file type of "/data/sub-01/anat/sub-01_T1w.nii.gz"',
    "Stderr:\n\tImage Exception : #3 :: Attempted to divide images/ROIs of different sizes\nTraceback:\n"
    "\tRuntimeError: subprocess exited with code 134.",
    "Stderr:\n\tXL defect detected, too many holes\nTraceback:\n\tRuntimeError: subprocess exited with code 1.",
    "RuntimeError: Command:\nbbregister --s sub-01\nStandard error:\nERROR: cost is too high\nReturn code: 1",
]
OF_NOTHING = [
    "frobnicate.FrobnicationError: 0x33",
    "Exception: nobody has seen this",
    "OSError: [Errno 39] Directory not empty: '/scratch/x'",
    "AttributeError: 'NoneType' object has no attribute 'x'",
    "KeyboardInterrupt",
    # paths hold words of images
    "FileNotFoundError: No such file or no access: '/scratch/sub_01_wf/bold_task_rest_wf/frames/mask.nii.gz'",
    "OSError: [Errno 95] Operation not supported: '/scratch/mask/a' -> '/scratch/T1w/b'",
    "FileExistsError: [Errno 17] File exists: /scratch/registration/x",
    # exceptions that values raise, and code as well
    "ValueError: I/O operation on closed file.",
    "ValueError: bad marshal data (unknown type code)",
    "ValueError: Could not build path with entities {'subject': '01'}",
    "subprocess.TimeoutExpired: Command 'x' timed out after 60 seconds",
    "Stderr:\n\tSegmentation fault\nTraceback:\n\tRuntimeError: subprocess exited with code 139.",
]

#: What healthy and failed runs print alike: none of it may decide.
CHATTER = """Sentry responded with an error: <urlopen error [Errno 101] Network is unreachable> (url: https://x/store/)
Unable to find image 'nipreps/fmriprep:25.2.7' locally
25.2.7: Pulling from nipreps/fmriprep
RUNNING: docker run --rm -v /scratch/oom_kill-study:/data:ro nipreps/fmriprep:25.2.7
mkdir -p failed for path /home/fmriprep/.config/matplotlib: [Errno 13] Permission denied: '/home/fmriprep/.config'
 Could not check for version updates: Connection to server could not be made
 Retrying (Retry(total=2)) after connection broken by 'NewConnectionError(...: Failed to establish a new connection)'
 Memory resampled/largemem=0.28/0.5/1 GB
 zlib: status -2, code 137; ERROR : a warning of a program
 No BOLD field maps; no T1w to T2w registration
 fMRIPrep failed: Workflow did not execute cleanly. Check log for details
fMRIPrep: Please report errors to https://github.com/nipreps/fmriprep/issues
"""


def crash(node: str, text: str = "ValueError: x") -> Crash:
    return Crash(f"fmriprep_25_2_wf.sub_01_wf.{node}", text.splitlines()[0] if text else "", text)


@pytest.mark.parametrize(("code", "said", "meaning"), SITE)
def test_faults_of_the_site(code, said, meaning):
    found = recognise(code, CHATTER + said, [], IMAGE)
    assert found.kind == "site"
    assert meaning in found.sentence
    assert len(found.sentence) <= 200
    if code not in (125, 143):  # the same within a node is not the subject's either
        assert recognise(1, CHATTER, [crash("anat_fit_wf.x", said)], IMAGE).kind == "site"


@pytest.mark.parametrize(("code", "said"), MEMORY)
def test_faults_of_memory(code, said):
    assert recognise(code, CHATTER + said, [], IMAGE).kind == "memory"
    # nodes that crash beside a process that was killed are no evidence
    assert recognise(code, CHATTER + said, [crash("bold_task_rest_wf.x")], IMAGE).kind == "memory"


@pytest.mark.parametrize(
    ("code", "said", "meaning"),
    [
        (
            1,
            "Exception: No T1w images found for participant 01. All workflows require T1w images.",
            "No T1w images",
        ),
        (1, "RuntimeError: No BOLD images found for participant 01 and task rest.", "No BOLD images"),
        (65, "CRITICAL: Fieldmap is broken", "a field map cannot be used: CRITICAL: Fieldmap is broken"),
    ],
)
def test_faults_of_the_subject_before_any_node_runs(code, said, meaning):
    found = recognise(code, CHATTER + said, [], IMAGE)
    assert found.kind == "subject"
    assert meaning in found.sentence


def test_a_program_that_may_not_write_is_no_fault_of_the_subjects():
    text = (
        "Stderr:\n\tcp: cannot create regular file '/out/x': Permission denied\nTraceback:\n\tRuntimeError: x"
    )
    assert recognise(1, CHATTER, [crash("anat_fit_wf.x", text)], IMAGE).kind == "site"


@pytest.mark.parametrize(("said", "meaning"), SITE_OF_NODES)
def test_faults_of_the_site_within_nodes(said, meaning, tmp_path):
    text = f"Stderr:\n\t{said}\nTraceback:\n\tRuntimeError: subprocess exited with code 1.\n"
    found = recognise(1, CHATTER, [written(tmp_path / "crash-1.txt", text)], IMAGE)
    assert found.kind == "site"
    assert meaning in found.sentence
    assert len(found.sentence) <= 200


@pytest.mark.parametrize("what", ["IndexError: list index out of range", "TypeError: not list"])
def test_what_templateflow_raises_is_no_fault_of_the_subjects(what, tmp_path):
    frame = '  File "/opt/env/lib/python3.12/site-packages/{}", line 12, in get\n    return x\n'
    traceback = frame.format("niworkflows/interfaces/x.py") + frame.format("templateflow/api.py") + what
    found = recognise(1, CHATTER, [written(tmp_path / "crash-1.txt", traceback)], IMAGE)
    assert found.kind == "site"
    assert "fetch it into preproc.templateflow_home again" in found.sentence
    assert len(found.sentence) <= 200
    traceback = (
        frame.format("templateflow/api.py") + frame.format("niworkflows/interfaces/x.py") + "ValueError: x"
    )
    assert recognise(1, CHATTER, [written(tmp_path / "crash-2.txt", traceback)], IMAGE).kind == "subject"


def test_an_empty_crash_file_is_nobodys_fault():
    found = recognise(1, CHATTER, [crash("anat_fit_wf.x"), crash("anat_fit_wf.y", "")], IMAGE)
    assert found.kind == "site"
    assert "crash file is empty" in found.sentence
    assert "free some space" in found.sentence


def test_a_crashed_node_is_the_subjects_with_its_cause():
    found = recognise(1, CHATTER, [crash("bold_task_rest_wf.hmc"), crash("bold_task_rest_wf.hmc")], IMAGE)
    assert found.kind == "subject"
    assert found.sentence == "node bold_task_rest_wf.hmc crashed: ValueError: x"
    found = recognise(1, CHATTER, [crash(f"bold_task_rest_wf.n{i}") for i in range(9)], IMAGE)
    assert found.sentence.endswith("node bold_task_rest_wf.n1 crashed: ValueError: x; and 7 more nodes")


@pytest.mark.parametrize(
    ("code", "said", "last"), [(1, "", "report"), (139, "one\nlast words", "last words"), (0, "", "")]
)
def test_the_rest_is_unknown(code, said, last):
    found = recognise(code, said, [], IMAGE)
    assert found.kind == "unknown"
    assert last in found.sentence or found.sentence.endswith("it printed nothing")


@pytest.mark.parametrize(
    ("said", "kind"), [*((said, "subject") for said in OF_DATA), *((said, "unknown") for said in OF_NOTHING)]
)
def test_a_crash_that_no_image_explains_excludes_nobody(said, kind, tmp_path):
    found = recognise(1, CHATTER, [crash("anat_fit_wf.x"), written(tmp_path / "crash-1.txt", said)], IMAGE)
    assert found.kind == kind
    assert "node anat_fit_wf." in found.sentence


def test_crashes_of_a_job_that_was_stopped_are_of_nobody():
    assert recognise(143, CHATTER, [crash("anat_fit_wf.x")], IMAGE).kind == "site"


def test_what_a_node_was_given_may_be_named_as_anything(tmp_path):
    path = tmp_path / "crash-1.txt"
    path.write_text(
        "Node: f.sub_01_wf.bold_wf.x\n\nNode inputs:\n\nin_file = /data/oom-kill: Input/output error.nii.gz\n\n"
        "Traceback (most recent call last):\nCmdline:\n\tflirt -in /data/oom-kill: Input/output error.nii.gz\n"
        "Stdout:\n\t\nStderr:\n\tno overlap\nTraceback:\n\tRuntimeError: subprocess exited with code 1.\n"
    )
    assert recognise(1, CHATTER, [read_crash(path)], IMAGE).kind == "subject"


def test_every_row_of_the_table_can_be_found_and_says_something():
    for known in TABLE:
        assert known.words or known.exit_codes
        re.compile(known.words)
        assert known.meaning.format(image=IMAGE, line="x")


def written(path: Path, traceback: str) -> Crash:
    path.write_text(
        "Node: fmriprep_25_2_wf.sub_01_wf.anat_fit_wf.surface_recon_wf.autorecon1\nWorking directory: /scratch/x\n\n"
        f"Node inputs:\n\nargs = <undefined>\n\nTraceback (most recent call last):\n{traceback}"
    )
    return read_crash(path)


def test_the_cause_of_a_program_that_failed_is_what_it_printed(tmp_path):
    found = written(
        tmp_path / "crash-1.txt",
        "nipype.pipeline.engine.nodes.NodeExecutionError: Exception raised while executing Node autorecon1.\n\n"
        "Cmdline:\n\trecon-all -autorecon1 -subjid sub-01\nStdout:\n\tmri_convert x\n"
        "\tERROR: mri_watershed: preflooding height equal to 25 percent\n"
        "\trecon-all -s sub-01 exited with ERRORS at Wed Mar 20 13:29:55 UTC 2019\n"
        "\tFor more details, see the log file /out/recon-all.log\nStderr:\n\t\nTraceback:\n"
        "\tTraceback (most recent call last):\n\tRuntimeError: subprocess exited with code 1.\n\n",
    )
    assert found.cause == "ERROR: mri_watershed: preflooding height equal to 25 percent"
    assert found.steps == ["anat_fit_wf", "surface_recon_wf", "autorecon1"]
    assert found.shared


def test_the_cause_of_an_exception_is_its_sentence(tmp_path):
    found = written(
        tmp_path / "crash-1.txt", '  File "x.py", line 1\nEOFError: Compressed file ended early\n'
    )
    assert found.cause == "EOFError: Compressed file ended early"


def test_an_empty_crash_file_has_the_node_of_its_name(tmp_path):
    path = tmp_path / "crash-20261126-120000-user-hmc-01234567-89ab-cdef-0123-456789abcdef.txt"
    path.touch()
    assert (read_crash(path).node, read_crash(path).cause) == ("hmc", "its crash file is empty")


def test_workflows_have_the_names_that_fmriprep_gives():
    assert workflow_of("sub-01_task-nback_bold.nii.gz") == "bold_task_nback_wf"
    assert (
        workflow_of("sub-01_ses-1_task-a+b_run-01_echo-1_bold.nii.gz")
        == "bold_ses_1_task_a_b_run_01_echo_1_wf"
    )
    assert crash("bold_task_nback_wf.hmc").run == "bold_task_nback_wf"
    assert crash("func_preproc_task_nback_wf.hmc").run == "bold_task_nback_wf"  # of earlier releases
    assert crash("anat_fit_wf.x").run is None
    assert not crash("fmap_preproc_wf.wf_auto_00000.x").shared
