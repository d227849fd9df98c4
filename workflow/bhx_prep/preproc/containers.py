"""Commands that start fMRIPrep in Docker or Apptainer, and their requirements."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bhx_model import home_folder
from bhx_model.errors import ConfigError, SiteError
from bhx_prep.config.fmriprep_arguments import Given, given_words, named_folders, parse
from bhx_prep.config.preproc import is_image_file, output_spaces
from bhx_prep.ingest.choice import T1W_MM
from bhx_prep.io.spaces import MNI152
from bhx_prep.preproc.licence import licence_mistake
from bhx_prep.preproc.template_files import missing

#: Where the paths among the user's arguments are seen in Apptainer, and which of them fMRIPrep writes to.
PLACES: Final = {
    "--bids-filter-file": "/bids_filter.json",
    "--use-plugin": "/plugin.yml",
    "--config-file": "/config.toml",
    "--bids-database-dir": "/bids_db",
    "--fs-subjects-dir": "/subjects",
}
WRITTEN: Final = ("--bids-database-dir", "--fs-subjects-dir")


@dataclass(frozen=True)
class Folders:
    """Where one subject's job works, all private: `view` is what the container reads, `out` what it writes."""

    view: Path
    out: Path
    scratch: Path

    @classmethod
    def below(cls, work: Path) -> Folders:
        """The three folders, in a job's work folder."""
        return cls(work / "bids", work / "out", work / "scratch")


def container_command(
    preproc: Mapping[str, Any], subject: str, folders: Folders, threads: int, mem_mb: int
) -> list[str]:
    """Build the command that starts fMRIPrep, by ``fmriprep-docker`` or ``apptainer run``.

    Parameters
    ----------
    preproc : mapping
        Section `preproc` of the configuration.
    subject : str
        Without ``sub-``.
    folders : Folders
        Absolute paths.
    threads : int
        Of fMRIPrep.
    mem_mb : int
        Memory of fMRIPrep, MB.

    Returns
    -------
    list of str

    Raises
    ------
    SiteError
        If there is no Apptainer where it is asked for.
    """
    build = docker_command if preproc["backend"] == "fmriprep-docker" else apptainer_command
    return build(preproc, subject, folders, threads, mem_mb)


def docker_command(
    preproc: Mapping[str, Any], subject: str, folders: Folders, threads: int, mem_mb: int
) -> list[str]:
    """Build the call of ``fmriprep-docker``; parameters as of `container_command`."""
    # positionals first: the wrapper takes the first bare word it meets for the dataset
    command = [sys.executable, "-m", "fmriprep_docker", str(folders.view), str(folders.out), "participant"]
    command += ["--image", preproc["image"], "--no-tty", "--user", f"{os.getuid()}:{os.getgid()}"]
    command += ["--work-dir", str(folders.scratch), "--fs-license-file", absolute(licence(preproc) or "")]
    if preproc["templateflow_home"]:
        from fmriprep_docker.__main__ import PKG_PATH

        # the wrapper has no option for a further mount but this one, which mounts below the container's packages
        command += ["--patch", f"bhx_templateflow={absolute(preproc['templateflow_home'])}"]
        command += ["--env", "TEMPLATEFLOW_HOME", f"{PKG_PATH}/bhx_templateflow"]
        command += ["--env", "TEMPLATEFLOW_AUTOUPDATE", "off", "--network", "none"]
    # the wrapper mounts what its options name
    return [*command, *bhx_arguments(preproc, subject, threads, mem_mb), *further_arguments(preproc)]


def apptainer_command(
    preproc: Mapping[str, Any], subject: str, folders: Folders, threads: int, mem_mb: int
) -> list[str]:
    """Build the call of ``apptainer run``; parameters as of `container_command`.

    The image is a file (``.sif``) or the name of one at a registry.
    """
    image = preproc["image"]
    if not is_image_file(image) and "://" not in image:
        image = f"docker://{image}"
    # --containall hides the user's home and gives a /tmp in memory, hence the bound one
    command = [_apptainer(), "run", "--cleanenv", "--containall", "--pwd", "/scratch"]
    mounts = [
        f"{folders.view}:/data:ro",
        f"{folders.out}:/out",
        f"{folders.scratch}:/scratch",
        f"{folders.scratch / 'tmp'}:/tmp",
        f"{absolute(licence(preproc) or '')}:/opt/freesurfer/license.txt:ro",
    ]
    if preproc["templateflow_home"]:
        mounts.append(f"{absolute(preproc['templateflow_home'])}:/templateflow:ro")
        command += ["--env", "TEMPLATEFLOW_HOME=/templateflow,TEMPLATEFLOW_AUTOUPDATE=off"]
    words = []
    for given in _further(preproc):
        words += [given.name] if given.name else []
        if given.name == "--derivatives":
            words += [f"{name}=/deriv/{name}" for name, _ in _named(given)]
            mounts += [f"{path}:/deriv/{name}:ro" for name, path in _named(given)]
        elif given.name in PLACES:
            place, mode = PLACES[given.name], "" if given.name in WRITTEN else ":ro"
            words += [place for _ in given.values]
            mounts += [f"{absolute(path)}:{place}{mode}" for path in given.values]
        else:
            words += given.values
    for mount in mounts:
        command += ["--bind", mount]
    command += [image, "/data", "/out", "participant", "--work-dir", "/scratch"]
    command += ["--fs-license-file", "/opt/freesurfer/license.txt"]
    return [*command, *bhx_arguments(preproc, subject, threads, mem_mb), *words]


def bhx_arguments(preproc: Mapping[str, Any], subject: str, threads: int, mem_mb: int) -> list[str]:
    """Arguments of fMRIPrep that are not the user's; parameters as of `container_command`."""
    spaces = preproc["output_spaces"] or output_spaces(MNI152[0], T1W_MM)  # where no study filled them in
    return [
        "--participant-label", subject, "--output-spaces", *spaces,
        "--nthreads", str(threads), "--omp-nthreads", str(min(threads, 8)), "--mem-mb", str(mem_mb),
        "--skip-bids-validation", "--notrack",
    ]  # fmt: skip


def further_arguments(preproc: Mapping[str, Any]) -> list[str]:
    """The user's arguments of fMRIPrep but for the licence, with the whole paths of this machine.

    Parameters
    ----------
    preproc : mapping
        Section `preproc` of the configuration.

    Raises
    ------
    ConfigError
        If a folder of ``--derivatives`` cannot be named in a container.
    """
    words: list[str] = []
    for given in _further(preproc):
        words += [given.name] if given.name else []
        if given.name == "--derivatives":
            words += [f"{name}={path}" for name, path in _named(given)]
        elif given.option.kind in ("file", "folder"):
            words += map(absolute, given.values)
        else:
            words += given.values
    return words


def check_site(preproc: Mapping[str, Any], mounted: Sequence[Path]) -> None:
    """Check what a container needs of the machine, before one is started.

    Parameters
    ----------
    preproc : mapping
        Section `preproc` of the configuration.
    mounted : sequence of Path
        Folders of the job that are mounted.

    Raises
    ------
    SiteError
        With what is missing, or may not be mounted.
    """
    own = licence(preproc)
    if not own:
        msg = "no FreeSurfer licence: set preproc.fs_license to your licence file (fMRIPrep asks for it)"
        raise SiteError(msg)
    if (mistake := licence_mistake(home_folder.expanded(own))) is not None:
        msg = f"preproc.fs_license: there is {mistake}: name your licence file"
        raise SiteError(msg)
    home = preproc["templateflow_home"]
    if home:
        _check_templates(Path(home), preproc)
    if preproc["backend"] == "fmriprep-docker":
        if shutil.which("docker") is None:
            msg = "docker is not installed on this machine: install it, or use another preproc.backend"
            raise SiteError(msg)
    else:
        _apptainer()
        image = preproc["image"]
        if is_image_file(image) and not Path(image).is_file():
            msg = f"preproc.image: there is no file {image}"
            raise SiteError(msg)
    paths = named_paths(given_words(preproc))
    subjects = preproc.get("fs_subjects_dir")
    if subjects and not Path(subjects).is_dir():  # else recon-all would start anew, for hours
        msg = f"preproc.fs_subjects_dir names {subjects}, which is not there: correct it, or make it"
        raise SiteError(msg)
    for name, path in paths:
        if name in WRITTEN:
            path.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            msg = f"preproc.fmriprep_args: {name} names {path}, which is not there"
            raise SiteError(msg)
    for path in [*mounted, Path(own), *([Path(home)] if home else []), *(path for _, path in paths)]:
        if (mistake := unmountable(path)) is not None:
            raise SiteError(mistake)


def _check_templates(home: Path, preproc: Mapping[str, Any]) -> None:
    """Containers have no network where there is a home: what it lacks would end every job after minutes."""
    if not home.is_dir():
        msg = f"preproc.templateflow_home: there is no folder {home}: make and fill it by `bhx preproc fetch`"
        raise SiteError(msg)
    if absent := missing(home, preproc):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        name = absent[0].rpartition("/")[2]
        msg = (
            f"preproc.templateflow_home lacks {name}{more}: run `bhx preproc fetch` where there is a network"
        )
        raise SiteError(msg)


def licence(preproc: Mapping[str, Any]) -> str | None:
    """The FreeSurfer licence file: that of `fmriprep_args`, else `fs_license`."""
    given = [g.values[-1] for g in parse(given_words(preproc)) if g.name == "--fs-license-file" and g.values]
    return given[-1] if given else preproc["fs_license"]


def named_paths(words: Sequence[str]) -> list[tuple[str, Path]]:
    """Option and path of everything on the disk that the user's arguments name."""
    found: list[tuple[str, Path]] = []
    for given in parse(words):
        if given.name == "--derivatives":
            found += [(given.name, Path(path)) for _, path in _named(given)]
        elif given.option.kind in ("file", "folder"):
            found += [(given.name, Path(absolute(path))) for path in given.values]
    return found


def unmountable(path: Path) -> str | None:
    """Why containers cannot be given a path; None where they can."""
    if re.search(r"[:,]", absolute(path)):
        return f"{path} contains ':' or ',', which containers read as the end of a path: rename it"
    return None


def absolute(path: str | Path) -> str:
    """A path as containers want it.

    Raises
    ------
    ConfigError
        If it begins with ``~`` and a name that has no home folder.
    """
    return str(home_folder.expanded(path).absolute())


def _further(preproc: Mapping[str, Any]) -> list[Given]:
    """The user's arguments but for the licence, which has its place."""
    return [given for given in parse(given_words(preproc)) if given.name != "--fs-license-file"]


def _named(given: Given) -> list[tuple[str, str]]:
    """Name and path of each value of ``--derivatives``, which may be ``name=path`` or a path alone."""
    pairs = []
    for name, path in named_folders(given):
        if not re.fullmatch(r"\w[\w.+-]*", name):  # it becomes a folder of the container
            msg = f"--derivatives {path}: {name!r} cannot name a folder, give it as NAME=FOLDER with letters and digits"
            raise ConfigError(msg)
        pairs.append((name, absolute(path)))
    return pairs


def _apptainer() -> str:
    for name in ("apptainer", "singularity"):
        if shutil.which(name):
            return name
    msg = "neither apptainer nor singularity is installed on this machine: install one, or use another preproc.backend"
    raise SiteError(msg)
