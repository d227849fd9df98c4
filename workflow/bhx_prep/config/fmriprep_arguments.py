"""Parse fMRIPrep's arguments and output spaces and check them without fMRIPrep."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bhx_prep.config.fmriprep_options import (
    OPTIONS,
    OURS,
    OWN_SPACES,
    RELEASE,
    REPLACED,
    TEMPLATES,
    Option,
    Template,
)
from bhx_prep.config.mistakes import nearest
from bhx_prep.config.section import path_mistake

#: Keys of section `preproc` that are options of fMRIPrep.
KEYS: Final = {
    "level": "--level",
    "cifti_output": "--cifti-output",
    "subject_anatomical_reference": "--subject-anatomical-reference",
    "fs_subjects_dir": "--fs-subjects-dir",
}

#: Options and values of which one takes back the other, or makes what the other needs not be made.
CONTRADICTIONS: Final = (
    ("--msm", "--no-msm"),
    ("--track-sessions", "--no-track-sessions"),
    ("--submm-recon", "--no-submm-recon"),
    ("--force bbr", "--force no-bbr"),
    ("--force fmap-jacobian", "--ignore fmap-jacobian"),
    ("--fs-no-reconall", "--fs-subjects-dir"),
    ("--fs-no-reconall", "--fs-no-resume"),
)

#: Dashes that word processors and web pages put in the place of hyphens.
_DASHES: Final = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"

_BY_NAME = {name: option for option in OPTIONS for name in option.names}
_VALUES = {
    "integer": (r"[+-]?\d+", "a whole number"),
    "count": (r"\d+", "a whole number from 0"),
    "positive": (r"0*[1-9]\d*", "a whole number from 1"),
    "session": (r"(?:ses-)?[A-Za-z0-9+]+", "labels of sessions"),
    "task": (r"[A-Za-z0-9+]+", "the label of a task, without task-"),
    "number": (r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", "a number"),
    "fraction": (
        r"start|middle|0?\.\d+|0\.?|1(?:\.0*)?|\d(?:\.\d+)?[eE]-\d+",
        "`start`, `middle`, or a number from 0 to 1",
    ),
    "memory": (r"\d+(?:[KMGTB]B?)?", "MB, or a number with its unit, as 24GB"),
    "readout": (r"estimated|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", "`estimated`, or seconds"),
}


@dataclass
class Given:
    """An option as it was given."""

    option: Option
    values: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name that BHX writes; empty of words that follow no option."""
        return next(iter(self.option.names), "")


def given_words(preproc: Mapping[str, Any]) -> list[str]:
    """The user's arguments of fMRIPrep: those that have keys of their own, then ``fmriprep_args``.

    Parameters
    ----------
    preproc : mapping
        Section `preproc` of the configuration; keys that are absent or null are not given.
    """
    words = [str(word) for key, name in KEYS.items() if preproc.get(key) for word in (name, preproc[key])]
    return [*words, *map(str, preproc.get("fmriprep_args") or ())]


def value_of(words: Sequence[str], name: str) -> str | None:
    """The last value of an option; None where it is not given, or without a value."""
    values = [given.values[-1] for given in parse(words) if given.name == name and given.values]
    return values[-1] if values else None


def stated_twice(preproc: Mapping[str, Any]) -> Iterator[str]:
    """Options that have a key and are among ``fmriprep_args`` as well, or take a key back, one sentence each."""
    names = {given.name for given in parse([str(word) for word in preproc.get("fmriprep_args") or ()])}
    for key, name in (*KEYS.items(), ("fs_license", "--fs-license-file")):
        if preproc.get(key) and name in names:
            yield f"{name} is also stated by preproc.{key}: leave one out"
        yield from (
            f"{other} contradicts preproc.{key}: leave one out"
            for pair in CONTRADICTIONS
            for other in pair
            if preproc.get(key) and name in pair and other != name and other in names
        )


def parse(words: Sequence[str]) -> list[Given]:
    """Options with their values; arguments that fMRIPrep would not accept are kept unchanged.

    Parameters
    ----------
    words : sequence of str
        ``preproc.fmriprep_args``.
    """
    return _parse(words)[0]


def argument_mistakes(words: Sequence[str]) -> list[str]:
    """What fMRIPrep would not take of ``preproc.fmriprep_args``, one sentence each."""
    return _parse(words)[1]


def space_mistakes(spaces: Iterable[str]) -> Iterator[str]:
    """What fMRIPrep or TemplateFlow do not have of ``preproc.output_spaces``, one sentence each."""
    for space in spaces:
        name, *modifiers = space.rstrip(":").split(":")
        if re.fullmatch(r"(?:res|den|cohort)-\w+", name):
            yield f"{space} stands behind a space, as MNI152NLin2009cAsym:res-2"
        elif name in OWN_SPACES:
            if modifiers:
                yield f"{space}: {name} is a space of the subject's own, which takes no modifiers"
        elif name in TEMPLATES:
            yield from (f"{space}: {what}" for what in _modifiers(name, TEMPLATES[name], modifiers))
        elif found := re.search(r"(?:^|/)tpl-(\w+)$", name):
            yield f"{space}: fMRIPrep {RELEASE} wants a template's name alone, as {found[1]}"
        else:
            near = _nearest(name, [*TEMPLATES, *OWN_SPACES])
            yield f"no space {name!r}{near or ': an atlas is none, and TemplateFlow has no such template'}"


def is_of_release(image: str, release: str = RELEASE) -> bool:
    """Whether an image is, or may be, of a release such as ``25.2``: one that names no release may be of any."""
    named = re.search(r"(?<![\d.])(\d+\.\d+)\.\d+(?![\d.]*@)", image.rpartition("/")[2].partition("@")[0])
    return named is None or release.startswith(named[1])


def _nearest(word: str, known: list[str]) -> str:
    """What may have been meant; there are too many to name them all."""
    found = nearest(word, known)
    return found if "did you mean" in found else ""


def _parse(words: Sequence[str]) -> tuple[list[Given], list[str]]:
    given: list[Given] = []
    mistakes: list[str] = []
    open_option: Given | None = None
    closed = False
    for word in words:
        if not word.startswith("-") or re.match(r"-\.?\d", word):
            if word.startswith(tuple(_DASHES)):
                mistakes.append(
                    f"{word} begins with a dash that is no hyphen: write --{word.lstrip('-' + _DASHES)}"
                )
                given.append(Given(Option(()), [word]))
            elif open_option is None:
                mistakes.append(f"{word.strip() or repr(word)} follows no option that takes it")
                given.append(Given(Option(()), [word]))
            elif closed:
                mistakes.append(
                    f"{word} is left over, as `=` gives {open_option.name} one value: leave the `=` out"
                )
                open_option.values.append(word)
            else:
                open_option.values.append(word)
            continue
        name, equals, value = word.partition("=")
        option = _option(name)
        open_option = Given(option if isinstance(option, Option) else Option((name,), "any"))
        closed = bool(equals)
        if closed:
            open_option.values.append(value)
        if isinstance(option, str):
            mistakes.append(option)
        given.append(open_option)
    known = [one for one in given if one.option in OPTIONS]
    for one in known:
        mistakes += _value_mistakes(one)
    return given, [*mistakes, *_twice(known), *_contradictions(known)]


def _twice(given: Sequence[Given]) -> Iterator[str]:
    """Options of which the parser would take the last alone."""
    names = Counter(one.name for one in given if one.name != "--verbose")
    yield from (f"{name} stands there {n} times: name it once" for name, n in names.items() if n > 1)
    named = [name for one in given if one.name == "--derivatives" for name, _ in named_folders(one)]
    yield from (f"--derivatives names {name} twice" for name, n in Counter(named).items() if n > 1)


def _contradictions(given: Sequence[Given]) -> Iterator[str]:
    words = {one.name for one in given} | {f"{one.name} {value}" for one in given for value in one.values}
    for pair in CONTRADICTIONS:
        if words.issuperset(pair):
            yield f"{pair[0]} and {pair[1]} contradict each other: leave one out"


def named_folders(given: Given) -> list[tuple[str, str]]:
    """Name and folder of each value of ``--derivatives``, which may be ``name=folder`` or a folder alone."""
    pairs = [value.rpartition("=") for value in given.values]
    return [(name if equals else Path(folder).name, folder) for name, equals, folder in pairs]


def _option(name: str) -> Option | str:
    """The option of a name or of its unique beginning; else what is wrong with it."""
    if re.fullmatch(r"-v+", name):
        return _BY_NAME["-v"]
    if re.search(r"\s", name):
        return f"{name!r} is one item of several words: give each word an item of its own"
    if name == "--":
        return "-- ends the options of a shell's command: leave it out"
    option = _BY_NAME.get(name)
    if option is None and name[1:2] != "-" and (short := name[:2]) in _BY_NAME:
        return f"{name} is a name and a value in one: write {short} and {name[2:]} as items of their own"
    if option is None and name in REPLACED:
        return f"no option {name}: {REPLACED[name]}"
    if option is None and name.startswith("--"):
        found = {o.names[0]: o for full, o in _BY_NAME.items() if full.startswith(name)}
        if len(found) > 1:
            shown = ", ".join(sorted(found)[:3])
            return f"{name} may mean {len(found)} options ({shown}{', ..' * (len(found) > 3)}): write one in full"
        option = next(iter(found.values()), None)
    if option is None:
        return f"no option {name} of fMRIPrep {RELEASE}{_nearest(name, list(_BY_NAME))}"
    if option.names[0] in OURS:
        return f"{name} is not for you to give: {OURS[option.names[0]]}"
    return option


def _value_mistakes(given: Given) -> Iterator[str]:
    option, values = given.option, given.values
    name, n = given.name, len(values)
    wanted, takes = {
        "nothing": (n == 0, "no value"),
        "one": (n == 1, "one value"),
        "one at most": (n <= 1, "one value or none"),
        "one or more": (n >= 1, "one value or more"),
        "any": (True, ""),
    }[option.takes]
    if not wanted:
        yield f"{name} takes {takes} (is {' '.join(values) or 'none'})"
    for value in values:
        if (
            option.kind in ("file", "folder", "named folders")
            and (what := path_mistake(value.rpartition("=")[2])) is not None
        ):
            yield f"{name} {value}: {what}"
            continue
        pattern, what = _VALUES.get(option.kind, (None, ""))
        if option.choices and value not in option.choices:
            yield f"{name} {value}: it takes {', '.join(option.choices)}"
        elif pattern and not re.fullmatch(pattern, value):
            yield f"{name} {value}: it takes {what}"
    if name == "--skull-strip-template":
        yield from (f"{name}: {what}" for what in space_mistakes(values))


def _modifiers(name: str, template: Template, modifiers: Sequence[str]) -> Iterator[str]:
    groups = [m.partition("-")[2] for m in modifiers if m.startswith("cohort-")]
    if template.cohorts and not groups:
        yield f"{name} has age groups: add one of cohort-{template.cohorts[0]} to cohort-{template.cohorts[-1]}"
    known = {
        "res": ("native", *template.resolutions),
        "den": template.densities,
        "cohort": template.cohorts,
    }
    for modifier in modifiers:
        entity, _, value = modifier.partition("-")
        entity = {"resolution": "res", "density": "den"}.get(entity, entity)
        if entity not in known:
            yield f"no modifier {modifier}: it takes res-, den- and cohort-"
        elif (value.lstrip("0") or "0") not in known[entity]:
            there = ", ".join(f"{entity}-{v}" for v in known[entity]) or "none"
            yield f"there is no {modifier}, but {there}"
