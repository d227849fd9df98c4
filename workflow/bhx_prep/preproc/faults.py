"""Classify failed preprocessing by messages of the programs: data, settings, machine, or unknown.

A fault of the *site* (image, daemon, licence, disk, network, arguments) meets every subject, so the job ends and nobody
is excluded for it. A fault of *memory* ends the job too: the next attempt asks for more. A fault of the *subject*, which
its images explain, is a row with its reason. Everything else is *unknown*, also a node's crash that says nothing of
images: the job ends, nobody is excluded.

The words are those of Docker, Podman, Apptainer, fMRIPrep 20 to 25 and its libraries, FreeSurfer, the kernel, and of
Slurm, PBS and LSF.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bhx_prep.preproc.crash_files import Crash

Kind = Literal["site", "memory", "subject", "unknown"]

#: Longest part of a sentence that is quoted from somebody else's message.
QUOTED: Final = 80


@dataclass(frozen=True)
class Known:
    """A fault that programs name in certain words.

    Attributes
    ----------
    kind : {"site", "memory", "subject"}
    meaning : str
        Sentence for the user; ``{image}`` and ``{line}``, the line that names the fault, are filled in.
    words : str
        Regular expression of what is printed; empty where the exit code alone tells.
    exit_codes : tuple of int
        What also tells, where no words of the table are found.
    where : {"anywhere", "errors", "crashes"}
        Where the words count: harmless warnings use some of them too, which then count only in lines that start as an
        exception's does, or only in crash files.
    """

    kind: Kind
    meaning: str
    words: str = ""
    exit_codes: tuple[int, ...] = ()
    where: Literal["anywhere", "errors", "crashes"] = "anywhere"


@dataclass(frozen=True)
class Fault:
    """Whose fault an end was, and a sentence that says what to do."""

    kind: Kind
    sentence: str


_DISK = "free some space, or work on another disk (TMPDIR, `tmpdir` in the profile)"
_BACKEND = "or use another preproc.backend"


def _ended(codes: str) -> str:
    """Words of a program that ended with one of some exit codes."""
    return rf"(?:[Ee]xit(?:ed)?\b.{{0,16}}\b(?:code|status):?|Return code:) (?:{codes})\b"


TABLE: Final = (
    # ---- the program that runs containers
    Known(
        "site",
        f"docker is not installed on this machine: install it, {_BACKEND}",
        r"Could not find docker command|docker: (?:command )?not found",
    ),
    Known(
        "site",
        f"docker may not be used by this account: join the group docker, {_BACKEND}",
        r"permission to run 'docker'|permission denied while trying to connect to the [Dd]ocker (?:daemon|API)"
        r"|docker\.sock: connect: permission denied",
    ),
    Known(
        "site",
        f"the docker daemon cannot be reached: start it, {_BACKEND}",
        r"[Cc]annot connect to the Docker daemon|Is the docker daemon running"
        r"|error during connect:|[Cc]annot connect to Podman|unable to connect to Podman socket",
    ),
    Known(
        "site",
        "docker hides its memory or has less than 8 GB, and fMRIPrep asks before it goes on: give docker more memory",
        r"Continue anyway\? \[y/N\]",
    ),
    Known(
        "site",
        "the image {image} is not on this machine and could not be fetched: docker pull {image}",
        r"pull access denied|manifest unknown|manifest for \S+ not found|No such image|error pulling image"
        r"|repository does not exist|toomanyrequests|[Ii]mage not known|initializing source docker://"
        r"|short-name .* did not resolve|registry-1\.docker\.io|failed to resolve reference"
        r"|Error response from daemon: (?:Get \"?https?://|net/http)|unauthorized: authentication|TLS handshake timeout",
    ),
    Known(
        "site",
        "the disk is full while the image {image} is unpacked: free some space (APPTAINER_CACHEDIR, APPTAINER_TMPDIR)",
        r"FATAL:.*(?:[Nn]o space left on device|quota exceeded)",
    ),
    Known(
        "site",
        f"apptainer may not make user namespaces on this machine: ask its administrators, {_BACKEND}",
        r"(?:[Cc]ould not|[Ff]ailed to) create user namespace|user namespaces? (?:are|is) (?:disabled|not)"
        r"|max_user_namespaces|[Ff]ailed to unshare"
        r"|newuidmap.*(?:not found|[Oo]peration not permitted)",
    ),
    Known(
        "site",
        "a folder cannot be mounted into the container: {line}",
        r"bind source path does not exist|invalid mount config|Mounts denied|invalid volume specification"
        r"|FATAL:.*(?:bind|mount) .*(?:no such file|doesn't exist|permission denied)|statfs .*: no such file",
    ),
    Known(
        "site",
        "the image {image} cannot be opened or fetched: apptainer pull it on a machine with network",
        r"FATAL:.*(?:image|docker://|oci|squashfs|SIF)|[Uu]nable to pull|failed to get checksum|unknown image format",
    ),
    Known(
        "site",
        "the image {image} has no fmriprep to run: name one of nipreps/fmriprep in preproc.image",
        r"executable file not found in \$PATH|OCI runtime (?:create|exec)|OCI runtime attempted to invoke"
        r"|No runscript and no /bin/sh|runscript: \d+: exec: \S+ not found",
    ),
    Known("site", "apptainer could not start the container: {line}", r"^FATAL: |^ERROR  : "),
    Known(
        "site",
        "the image {image} is made for another kind of processor than this machine's: pull the one for it",
        r"[Ee]xec format error|no matching manifest for",
    ),
    Known(
        "site",
        "docker could not start the container: {line}",
        r"Error response from daemon: |^Error: (?:OCI|crun|runc|writing blob)",
    ),
    Known(
        "site",
        f"docker does not say how much memory it has, as where its daemon cannot be reached: start it, {_BACKEND}",
        r"Could not detect memory capacity",  # also what the wrapper says last of an image that is not there
    ),
    # ---- arguments
    Known(
        "site",
        "fMRIPrep does not take its arguments: correct preproc.fmriprep_args or output_spaces ({line})",
        r"^\S*(?:fmriprep|__main__\.py)\S*: error: |fmriprep_docker: error: ",
    ),
    Known(
        "site",
        "fMRIPrep does not take its output spaces or options: correct preproc.output_spaces and fmriprep_args ({line})",
        r"space identifier \"?.*\"? is invalid|standard space \".*\" (?:is not|does not)|Custom template .* requires"
        r"|Modifiers are not allowed for nonstandard spaces|Cannot force and (?:disable|ignore)"
        r"|AttributeError: longitudinal|The selected (?:output folder|working directory) is",
    ),
    # ---- licence
    Known(
        "site",
        "FreeSurfer does not accept the licence file: name a valid one in preproc.fs_license",
        r"valid license file is required|FreeSurfer license file \S* ?(?:not found|is)|[Ii]nvalid FreeSurfer license"
        r"|ERROR: FreeSurfer.*licen[cs]e|ERROR: [Ss]ystems running|FreeSurfer .*cannot be used in FIPS mode"
        r"|[Ll]icen[cs]e.{0,80}expired|ERROR: crypt\(\) returned null",
    ),
    # ---- disks and their limits
    Known("site", f"the quota is used up: {_DISK}", r"[Dd]isk quota exceeded|\[Errno 122\]|EDQUOT"),
    Known(
        "site",
        f"the disk is full: {_DISK}",
        r"[Nn]o space left on device|\[Errno 28\]|ENOSPC|[Dd]isk (?:is )?full"
        r"|\d+ requested and \d+ written|[Ff]ailed to write \d+ bytes",
    ),
    Known(
        "site",
        "a folder that fMRIPrep writes to is read-only: {line}",
        r"Read-only file system|\[Errno 30\]",
        where="errors",
    ),
    Known(
        "site",
        "a folder may not be read or written by this account: {line}",
        r"\[Errno 13\] Permission denied|PermissionError|No usable temporary directory|a writable cache directory",
        where="errors",
    ),
    Known(
        "site",
        "the file system failed: restart, on another disk if it fails again ({line})",
        r"Stale (?:NFS )?file handle|Transport endpoint is not connected|Remote I/O error|: Input/output error"
        r"|\[Errno (?:5|107|108|112|116|121)\]",
    ),
    Known(
        "site",
        "a database cannot be used on this disk, as without locks: use another for work files, TMPDIR ({line})",
        r"sqlite3\.(?:Operational|Database)Error|unable to lock file|filelock\S*Timeout|[Nn]o locks available",
        where="errors",
    ),
    Known(
        "site",
        "a work file is damaged, gone, or of another release: remove the subject's work folder, start again ({line})",
        r"UnpicklingError|EOFError: Ran out of input|\.pklz\b|Can't get attribute '",
        where="errors",
    ),
    Known(
        "site",
        "this account may not write files as long, or with names as long, as needed: see ulimit -f, shorten TMPDIR ({line})",
        r"\[Errno (?:27|36)\]|File size limit exceeded|" + _ended("153|-25"),
    ),
    Known(
        "site",
        f"a program lost a file that it had in memory, as where a disk is full: {_DISK}",
        r"\bBus error|" + _ended("135|-7"),
    ),
    Known(
        "site",
        "the job was stopped from outside: start again, with more time if it had too little ({line})",
        r"DUE TO (?:TIME LIMIT|NODE FAILURE|PREEMPTION)|job killed: (?:walltime|cput)|exceeded hard wallclock time"
        r"|TERM_(?:RUNLIMIT|CPULIMIT|OWNER|ADMIN|PREEMPT)|[Nn]ode failure on "
        r"|" + _ended("130|143|-2|-15"),
    ),
    Known(
        "site",
        "this account may not start more processes or open more files here: raise the limit (ulimit -u, -n)",
        r"Too many open files|\[Errno 2[34]\]|libgomp: Thread creation failed|can't start new thread|pthread_create failed"
        r"|BlockingIOError: \[Errno 11\]|fork: (?:retry: )?Resource temporarily unavailable",
    ),
    Known(
        "site",
        "a folder may not be read or written by this account: {line}",
        r"[Pp]ermission denied",
        where="crashes",
    ),
    Known(
        "site",
        "a program could not write a file: look at the space and the rights of the job's folders ({line})",
        r"(?i:(?:could not|couldn't|cannot|can't|unable to|failed to) (?:write|open output|open .{0,120}for writing"
        r"|(?:create|make) (?:the )?(?:directory|file|folder|symbolic link))|error writing)",
        where="crashes",
    ),
    Known(
        "site",
        "the processor of this machine lacks instructions that the image's programs use: use another node",
        r"Illegal instruction|qemu: uncaught target signal|aren't available on your machine|"
        + _ended("132|-4"),
    ),
    # ---- templates
    Known(
        "site",
        "a template of TemplateFlow is missing and cannot be fetched: fill preproc.templateflow_home where there is network",
        r"Failed to download https?://|(?:requests|urllib3|botocore)\.exceptions\.\w+|aiohttp\.client_exceptions"
        r"|\b(?:httpx|http\.client)\.\w+|urllib\.error\.\w+|socket\.(?:gaierror|timeout)|\bConnection(?:\w+)?Error"
        r"|\bTimeoutError|Max retries exceeded|Tunnel connection failed|Temporary failure in name resolution"
        r"|Name or service not known"
        r"|Network is unreachable",
        where="errors",
    ),
    Known(
        "site",
        "a file of TemplateFlow is missing or broken: fetch it into preproc.templateflow_home again ({line})",
        r"(?:Error|Empty file|does not exist|No such file|[Cc]ould not (?:read|open)|[Cc]annot (?:read|open)).{0,160}"
        r"templateflow\S*/tpl-|templateflow\S*/tpl-\S*.{0,40}(?:does not exist|No such file|not a gzip|is empty)"
        r"|of a TemplateFlowSelect interface"
        r"|TEMPLATEFLOW_HOME folder \S+ seems to contain|TEMPLATEFLOW_HOME.*(?:not writable|read-only)",
    ),
    # ---- programs in the container
    Known(
        "site",
        "the container lacks a program that fMRIPrep needs: use an unchanged image of nipreps/fmriprep ({line})",
        r"Cannot run fMRIPrep\. Missing dependencies|No command \"?\S+\"? found on host"
        r"|No such file or directory: '(?:mri_\w+|mris_\w+|recon-all|bbregister|ants\w+|3d\w+|wb_command|c3d_affine_tool)'"
        r"|The 'freesurfer_home' trait .* 'None'|FREESURFER_HOME is not (?:defined|set)"
        r"|bids-validator.{0,40}(?:not found|not appear)",
    ),
    Known(
        "site",
        "the container lacks a program or library that fMRIPrep needs: use an unchanged image of nipreps/fmriprep ({line})",
        r": [Cc]ommand not found|error while loading shared libraries|^\s*(?:ModuleNotFound|Import)Error: "
        r"|binary incompatibility|Numpy is not available|numpy C-extensions failed",
        where="crashes",
    ),
    Known(
        "site",
        "the container lacks an account or an environment variable that a program needs: use an unchanged image ({line})",
        r"getpwuid\(\): uid not found|KeyError: '(?:HOME|USER|LOGNAME|PATH|\w+_HOME|\w*_?DIR)'",
        where="crashes",
    ),
    Known(
        "site",
        "FreeSurfer found a lock of another process: if none works on this subject, remove its scripts/IsRunning.*",
        r"it appears that recon-all is already running",
    ),
    # ---- memory
    Known(
        "memory",
        "preprocessing ran out of memory",
        r"BrokenProcessPool|process pool was terminated abruptly|process pool is not usable anymore"
        r"|result of insuff?ici?ent memory|Insufficient resources available for job"
        r"|[Oo]ut of memory: Kill|[Mm]emory cgroup out of memory|oom[-_]kill|OOMKilled|Out Of Memory"
        r"|cgroup out-of-memory handler|[Ee]xceeded (?:step |job |virtual )*memory limit|gone over cgroup memory limit"
        r"|exceeds job (?:hard|soft) limit \"\w*(?:vmem|rss|mem|data)|job killed: \w*mem|TERM_MEMLIMIT"
        r"|^\s*Killed\s*$|:\s+line \d+:\s+\d+ Killed"
        r"|\bsignal 9\b|\bSIGKILL\b|signal: killed|" + _ended("137|-9"),
        exit_codes=(137, -9),
    ),
    Known(
        "memory",
        "a program of the preprocessing got no memory",
        r"\bMemoryError\b|ArrayMemoryError|Cannot allocate memory|\[Errno 12\]|std::bad_alloc"
        r"|MemoryAllocationError|OutOfMemoryError|heap out of memory|Unable to allocate [\d.]+ [KMGT]iB"
        r"|could not allocate \d+|Failed to allocate memory|\b[mc]alloc(?:\(\))? ?fail|[Mm]emory exhausted"
        r"|\b[Oo]ut of memory\b",
    ),
    # ---- the subject's data, where fMRIPrep ends before any node runs
    Known("subject", "{line}", r"No (?:T1w|T1-weighted|BOLD) images|[Cc]annot find(?: a| any)? T1w"),
    Known("subject", "{line}", r"two echoes, which fMRIPrep does not support|T2w image is expected"),
    Known("subject", "{line}", r"Sophisticated PEPOLAR schemes are unsupported|Conflicting entities for"),
    Known("subject", "a field map cannot be used: {line}", exit_codes=(65,)),
    # ---- exit codes that speak for themselves
    Known("site", "docker could not start the container: {line}", exit_codes=(125,)),
    Known("site", "the image {image} has no fmriprep that could be run: {line}", exit_codes=(126, 127)),
    Known("site", "the container was stopped from outside: start again", exit_codes=(130, 143, -2, -15)),
)

#: What images explain of a node that crashed: an exception that values raise, words of images, or a program that ended
#: with an error of its own. Other exceptions (of the system, of a pickle, of code) say nothing of images.
_OF_DATA = re.compile(
    r"^\W*(?:[\w.]+\.)?(?:ValueError|IndexError|KeyError|ArithmeticError|ZeroDivisionError|FloatingPointError"
    r"|OverflowError|LinAlgError|ImageFileError|HeaderDataError|BadGzipFile|DataError|DimensionError|AxisError|EOFError"
    r"|zlib\.error)\b(?!: (?:I/O operation|bad marshal|Could not build path|.*semaphore))"
    r"|\b(?:T1w|T2w|BOLD|NaNs?|NIfTI|affine|registration|convergen?\w*|singular|slice timing|voxels?|masks?"
    r"|field ?maps?|corrupt\w*|damaged|truncated|volumes?|time ?points?|frames?"
    r"|different sizes|dimension\w*)\b|itk::|not a gzipped file|Expected \d+ bytes"
    r"|(?:exited with code|Return code:) (?:[1-9]\d?|1[01]\d|12[0-4])\b",
    flags=re.IGNORECASE | re.MULTILINE,
)
_ERROR = re.compile(
    r"^\W*(?:[\w.]*(?:Error|Exception|Fault|[Tt]imeout|Disconnected)\b|fMRIPrep failed: |.*\b(?:error|ERROR|FATAL):)"
)
#: A path, or what is quoted: it may be named as anything.
_NAMED = re.compile(r"(?<!\w)'[^']*'|\"[^\"]*\"|(?<![\w:])/\S+")
_CHATTER = re.compile(
    r"Please report errors|did not execute cleanly|\b[Ss]entry\b|^RUNNING:|^\$ |^\s*(?:File |\^|~|raise )"
)


def recognise(exit_code: int, log: str, crashes: Sequence[Crash], image: str) -> Fault:
    """Whose fault it is that fMRIPrep ended with an error.

    Faults of the site come before those of memory, and these before the subject's: what a full disk or a killed process
    does to nodes looks like anything.

    Parameters
    ----------
    exit_code : int
        Of the container, or of the program that started it; negative where a signal ended that.
    log : str
        What was printed.
    crashes : sequence of Crash
        Crash files of this attempt.
    image : str
        Of the container.
    """
    crashed = [crash.said for crash in crashes]
    for kind in ("site", "memory"):
        for known in TABLE:
            if known.kind == kind and known.words and (line := _line(known, crashed, log)):
                return Fault(known.kind, _sentence(known, image, line))
    if any(not text.strip() for text in crashed):
        return Fault("site", f"a node's crash file is empty, as where it could not be written: {_DISK}")
    last = last_words(log)
    by_code = next((known for known in TABLE if exit_code in known.exit_codes), None)
    if by_code is not None and by_code.kind != "subject":  # what it does to nodes looks like anything, too
        return Fault(by_code.kind, _sentence(by_code, image, last))
    for crash in crashes:
        if "/site-packages/templateflow/" in crash.raised_in:
            sentence = (
                "TemplateFlow lacks a file or cannot read one: fetch it into preproc.templateflow_home again"
            )
            return Fault("site", f"{sentence} ({_short(crash.sentence)})")
        if not _OF_DATA.search(_NAMED.sub("", f"{crash.cause}\n{crash.ended}")):
            return Fault("unknown", _short(crash.sentence, 2 * QUOTED))
    if crashes:
        sentences = list(dict.fromkeys(crash.sentence for crash in crashes))
        more = f"; and {len(sentences) - 2} more nodes" if len(sentences) > 2 else ""
        return Fault("subject", "; ".join(sentences[:2]) + more)
    for known in TABLE:
        if known.kind == "subject" and known.words and (line := _line(known, crashed, log)):
            return Fault("subject", _sentence(known, image, line))
    if by_code is not None:
        return Fault(by_code.kind, _sentence(by_code, image, last))
    return Fault("unknown", f"fMRIPrep ended with exit code {exit_code}: {_short(last)}")


def last_words(log: str) -> str:
    """The last line that names an error; else the last line that is not empty."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not _CHATTER.search(line)]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or ["it printed nothing"])[-1]


def _line(known: Known, crashed: Sequence[str], log: str) -> str | None:
    """The first line in which a fault is named."""
    words = re.compile(known.words)
    for text in crashed if known.where == "crashes" else [*crashed, log]:
        for line in text.splitlines():
            if (
                words.search(line)
                and not _CHATTER.search(line)
                and (known.where != "errors" or _ERROR.match(line))
            ):
                return line
    return None


def _sentence(known: Known, image: str, line: str) -> str:
    return known.meaning.format(image=image, line=_short(line))


def _short(line: str, length: int = QUOTED) -> str:
    line = " ".join(line.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."
