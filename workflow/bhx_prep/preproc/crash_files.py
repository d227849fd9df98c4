"""Read the crash files that nipype writes into fMRIPrep's output: which node failed, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Longest cause that is quoted.
QUOTED: Final = 140

_OUTPUT = re.compile(
    r"^(?:Stdout|Stderr|Standard output|Standard error):[^\S\n]*\n(.*?)"
    r"(?=^(?:Std\w+|Standard \w+|Traceback|Return code):|\Z)",
    flags=re.MULTILINE | re.DOTALL,
)
#: What a node was given, which may be named as anything: its inputs stand before the first traceback.
_COMMAND = re.compile(r"^(?:Cmdline|Command):[^\S\n]*\n.*$", flags=re.MULTILINE)
_ENDED = re.compile(r"(?:exited with code|Return code:) -?\d+")
_EXCEPTION = re.compile(r"^\s*[A-Za-z_][\w.]*(?:Error|Exception|Fault|Interrupt|Exit)\b")
#: Last lines that only say that a program failed, not why.
_EMPTY = re.compile(
    r"exited with (?:code|ERRORS|error)|Return code:|NodeExecutionError|^For more details|^To report"
)


@dataclass(frozen=True)
class Crash:
    """A node that failed.

    Attributes
    ----------
    node : str
        Full name, as ``fmriprep_25_2_wf.sub_01_wf.bold_task_rest_wf.bold_fit_wf.ds_hmc``.
    cause : str
        Why, in one line.
    text : str
        The whole file.
    """

    node: str
    cause: str
    text: str

    @property
    def steps(self) -> list[str]:
        """Workflows below the subject's, and the node."""
        parts = self.node.split(".")
        below = next((i + 1 for i, part in enumerate(parts) if re.match(r"(?:sub|single_subject)_", part)), 0)
        return parts[below:]

    @property
    def run(self) -> str | None:
        """The workflow of the run that it belongs to, as ``bold_task_rest_wf``; None where several runs share it."""
        # earlier releases call it func_preproc_task_rest_wf
        found = re.fullmatch(r"(?:bold|func_preproc)_(\w+_wf)", self.steps[0])
        return f"bold_{found[1]}" if found else None

    @property
    def shared(self) -> bool:
        """Whether it leaves nothing to keep: neither of one run, nor of the field maps that some of the runs use."""
        return self.run is None and not self.steps[0].startswith("fmap_")

    @property
    def said(self) -> str:
        """What its programs and exceptions said, without what the node was given."""
        _, found, traceback = self.text.partition("\nTraceback (most recent call last):")
        return _COMMAND.sub("", traceback if found else self.text)

    @property
    def ended(self) -> str:
        """How its program ended, as ``exited with code 1``; empty where no program failed."""
        return (_ENDED.findall(self.said) or [""])[-1]

    @property
    def raised_in(self) -> str:
        """The Python file in which the exception was raised; empty where no traceback names one."""
        return (re.findall(r'^\s*File "([^"\n]+)", line \d+', self.said, flags=re.MULTILINE) or [""])[-1]

    @property
    def sentence(self) -> str:
        """Which node, and why."""
        return f"node {'.'.join(self.steps)} crashed: {self.cause}"


def crash_files(out: Path) -> list[Path]:
    """Crash files below fMRIPrep's output."""
    return sorted(path for path in out.glob("**/log*/**/crash-*") if path.is_file())


def read_crash(path: Path) -> Crash:
    """Read a crash file.

    Parameters
    ----------
    path : Path
        As ``sub-01/log/<run>/crash-20261126-120000-user-node-<id>.txt``.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    named = re.match(r"Node: (\S+)", text)
    return Crash(named[1] if named else _node_of(path.name), _cause(text), text)


def workflow_of(bold: str) -> str:
    """The name that fMRIPrep gives to the workflow of a run.

    Parameters
    ----------
    bold : str
        Name of its file, of the first echo where there are several.
    """
    entities = bold.partition(".")[0].split("_")[1:-1]
    return f"bold_{re.sub('[-+]', '_', '_'.join(entities))}_wf"


def _node_of(name: str) -> str:
    """The node in a name such as ``crash-20261126-120000-user-node-<id>.txt``, used if the file is empty."""
    found = re.match(
        r"crash-\d+-\d+-[^-]+-(.+?)(?:-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})?\.\w+$", name
    )
    return found[1] if found else name


def _cause(text: str) -> str:
    """What a program printed last of an error, where one failed; else the last exception."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    exceptions = [line for line in lines if _EXCEPTION.match(line) and not _EMPTY.search(line)]
    if not exceptions or "subprocess exited" in lines[-1] or _EMPTY.search(lines[-1]):
        printed = [line.strip() for block in _OUTPUT.findall(text) for line in block.splitlines()]
        printed = [line for line in printed if line and not _EMPTY.search(line)]
        errors = [
            line for line in printed if re.search(r"\berror\b|exception|fault|fatal", line, re.IGNORECASE)
        ]
        if printed:
            return _short((errors or printed)[-1])
    return _short((exceptions or lines or ["its crash file is empty"])[-1])


def _short(line: str) -> str:
    line = " ".join(line.split())
    return line if len(line) <= QUOTED else f"{line[: QUOTED - 3]}..."
