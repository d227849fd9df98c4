"""Validate a study's argument lists with the parser of the installed fMRIPrep, if there is one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bhx_prep.config.config import Config
from bhx_prep.preproc.containers import bhx_arguments, further_arguments


@dataclass(frozen=True)
class Answer:
    """What a parser said: its release, and of every list what it refuses, or None."""

    release: str
    refusals: tuple[str | None, ...]


def ask(config: Config) -> Answer | None:
    """Give the parser every argument list of a study.

    Parameters
    ----------
    config : Config

    Returns
    -------
    Answer or None
        None where the study does not use fMRIPrep, where none is installed, or where it does not answer.
    """
    python = fmriprep_python()
    spaces = [c.space for c in config.cohorts.values() if c.input == "bids"]
    if python is None or config.preproc.backend == "embedded" or not spaces:
        return None
    lists = []
    for space in dict.fromkeys(spaces):
        section = config.preproc.of(space, config.features.t1w_resolution_mm).model_dump(mode="json")
        lists.append([*bhx_arguments(section, "01", 8, 21000), *further_arguments(section)])
    return ask_lists(python, lists, config.preproc.templateflow_home)


def ask_lists(python: str, lists: Sequence[Sequence[str]], templateflow_home: Path | None) -> Answer | None:
    """Give the parser lists of arguments; None where it does not answer.

    Parameters
    ----------
    python : str
        Of an environment with fMRIPrep.
    lists : sequence of sequences of str
        What follows the positional arguments.
    templateflow_home : Path or None
        Where it looks for templates; it knows their names without.
    """
    with tempfile.TemporaryDirectory(prefix="bhx-templateflow-") as empty:
        home = str(templateflow_home or empty)
        environment = {
            **os.environ,
            "NO_ET": "1",
            "TEMPLATEFLOW_HOME": home,
            "TEMPLATEFLOW_AUTOUPDATE": "off",
        }
        try:
            done = subprocess.run(
                [python, str(Path(__file__).with_name("ask_fmriprep.py"))],
                input=json.dumps([list(words) for words in lists]),
                capture_output=True,
                text=True,
                timeout=180,
                env=environment,
                check=True,
            )
            answer = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            return None
    return Answer(answer["release"], tuple(answer["refusals"]))


def fmriprep_python() -> str | None:
    """The Python that has fMRIPrep: BHX_FMRIPREP_PYTHON, else this one where it does."""
    named = os.environ.get("BHX_FMRIPREP_PYTHON")
    return named or (sys.executable if importlib.util.find_spec("fmriprep") else None)
