"""Arguments of fMRIPrep are checked before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bhx_model.errors import ConfigError, SiteError
from bhx_prep.commands.config import fmriprep_mistakes
from bhx_prep.config import fmriprep_parser
from bhx_prep.config.config import check
from bhx_prep.config.fmriprep_arguments import (
    argument_mistakes,
    given_words,
    is_of_release,
    parse,
    space_mistakes,
)
from bhx_prep.config.fmriprep_options import OPTIONS, TEMPLATES
from bhx_prep.config.preproc import PreprocSection
from bhx_prep.preproc.containers import bhx_arguments, check_site

GOOD = [
    [],
    ["--fs-no-reconall"],
    ["--cifti-output"],
    ["--cifti-output", "91k", "--fs-no-resume"],
    ["--cifti-output=170k", "--no-msm"],
    ["--ignore", "fieldmaps", "slicetiming", "--force", "bbr"],
    ["--session-label", "01", "ses-02", "-t", "rest", "-vv"],
    ["--dummy-scans", "4", "--random-seed", "-1", "--fd-spike-threshold", "0.5"],
    ["--use-syn-sdc", "--slice-time-ref", "0.5", "--fallback-total-readout-time", "estimated"],
    ["--fs-no-rec"],  # the beginning of one option only
    ["--skull-strip-template", "OASIS30ANTs:res-1"],
    ["--bold2anat-dof", "9", "--level", "full", "--debug", "compcor"],
    ["--slice-time-ref", "1e-1", "--fallback-total-readout-time", "5."],
]

BAD = [
    (["--use-aroma"], "run fMRIPost-AROMA"),
    (["--cifti-output", "32k"], "--cifti-output 32k: it takes 91k, 170k"),
    (["--session-id", "1"], "write `--session-label`"),
    (["--fs-noreconall"], "did you mean '--fs-no-reconall'"),
    (["--longitudinal"], "write `--subject-anatomical-reference unbiased`"),
    (["--force-bbr"], "write `--force bbr`"),
    (["--bold2t1w-dof", "6"], "write `--bold2anat-dof`"),
    (["--dummy-scans"], "--dummy-scans takes one value (is none)"),
    (["--dummy-scans", "x"], "it takes a whole number"),
    (["--fs-no-reconall", "yes"], "--fs-no-reconall takes no value (is yes)"),
    (["--ignore"], "--ignore takes one value or more"),
    (["--ignore", "fieldmap"], "it takes fieldmaps"),
    (["--slice-time-ref", "2"], "from 0 to 1"),
    (["--qqq"], "no option --qqq of fMRIPrep 25.2"),
    (["yes"], "yes follows no option"),
    ([" "], "' ' follows no option"),
    (["--dummy-scans=4", "--dummy-scans", "5"], "--dummy-scans stands there 2 times"),
    (["--ignore", "sbref", "--ignore", "t2w"], "--ignore stands there 2 times"),  # the parser takes the last
    (["--msm", "--no-msm"], "--msm and --no-msm contradict each other"),
    (["--force", "bbr", "no-bbr"], "--force bbr and --force no-bbr contradict"),
    (["-d", "x=/a", "x=/b"], "--derivatives names x twice"),
    (["--bids-filter-file", "$HOME/f.json"], "variables such as $HOME are not replaced"),
    (["--f"], "may mean"),
    (["--ignore=fieldmaps", "sbref"], "sbref is left over, as `=` gives --ignore one value"),
    (["-d=a=/x", "b=/y"], "b=/y is left over, as `=` gives --derivatives one value"),
    (["--ignore fieldmaps"], "'--ignore fieldmaps' is one item of several words"),
    (["--fs-no-reconall\n"], "is one item of several words"),
    (["—fs-no-reconall"], "begins with a dash that is no hyphen: write --fs-no-reconall"),
    (["--bids-filter-file", "'/a/f.json'"], "the quotation marks are part of the path"),
    (["--bids-filter-file", "`pwd`/f.json"], "variables such as `pwd` are not replaced"),
    (["--bids-filter-file", "~nobody.here/f.json"], "there is no home folder for ~nobody.here"),
]

#: Refused here although the parser takes them: what they ask for is not made, or decided elsewhere.
OURS = [
    (["--nthreads", "32"], "set `threads` of run_fmriprep"),
    (["--mem", "64GB"], "set `mem_mb` of run_fmriprep"),
    (["--participant-label", "01"], "name the cohort's `subjects`"),
    (["--output-spaces", "T1w"], "preproc.output_spaces"),
    (["-w", "/scratch"], "TMPDIR"),
    (["--reports-only"], "it makes no images"),
    (["--bids-filter-file="], "no path is given"),
    (["--fs-subjects-dir", ""], "no path is given"),
    (["-d", "old="], "no path is given"),
    (["-d", 'old="/a b"'], "the quotation marks are part of the path"),
    (["-trest"], "write -t and rest as items of their own"),
    (["-t", "task-rest"], "without task-"),
    (["--session-label", "01", "02 03"], "labels of sessions"),
    (["--echo-idx", "0"], "a whole number from 1"),
    (["--dummy-scans", "-1"], "a whole number from 0"),
    (["--debug", "all"], "it takes compcor, fieldmaps"),  # waits for somebody who types
    (["--"], "ends the options"),
]

GOOD_SPACES = [
    "MNI152NLin2009cAsym", "MNI152NLin2009cAsym:res-2", "MNI152NLin6Asym:res-02", "MNI152NLin6Asym:res-native", "T1w",
    "fsLR:den-32k", "fsaverage5", "fsaverage:den-10k", "func", "MNIPediatricAsym:cohort-3:res-1", "UNCInfant:cohort-2",
]  # fmt: skip

BAD_SPACES = [
    ("Schaefer", "an atlas is none"),
    ("res-9", "stands behind a space"),
    ("MNI152NLin2009Asym", "did you mean 'MNI152NLin2009"),
    ("T1w:res-2", "takes no modifiers"),
    ("/templates/tpl-Mine", "wants a template's name alone, as Mine"),
    ("MNIInfant", "has age groups"),
    ("MNIInfant:cohort-12", "there is no cohort-12"),
]


@pytest.mark.parametrize("words", GOOD)
def test_what_fmriprep_takes_is_no_mistake(words):
    assert argument_mistakes(words) == []


@pytest.mark.parametrize(("words", "said"), [*BAD, *OURS])
def test_what_it_does_not_take_is_named(words, said):
    found = argument_mistakes(words)
    assert len(found) == 1
    assert said in found[0]
    assert len(found[0]) <= 200


@pytest.mark.parametrize("space", GOOD_SPACES)
def test_spaces_that_there_are(space):
    assert list(space_mistakes([space])) == []


@pytest.mark.parametrize(
    ("space", "said"),
    [*BAD_SPACES, ("MNI152NLin2009cAsym:res-9", "there is no res-9, but res-native, res-1, res-2")],
)
def test_spaces_that_there_are_not(space, said):
    [found] = space_mistakes([space])
    assert said in found
    assert len(found) <= 200


def test_arguments_are_taken_apart():
    given = parse(["-d", "a=/x", "/y", "--mem_mb=3", "--cifti-output", "--new", "1", "2"])
    assert [(g.name, g.values) for g in given] == [
        ("--derivatives", ["a=/x", "/y"]),
        ("--mem_mb", ["3"]),  # not the user's to give
        ("--cifti-output", []),
        ("--new", ["1", "2"]),  # of another release
    ]


@pytest.mark.parametrize(
    ("image", "known"),
    [
        ("nipreps/fmriprep:25.2.7", True),
        ("nipreps/fmriprep:25.2.7@sha256:0123", True),
        ("/images/fmriprep.sif", True),
        ("/images/fmriprep-24.1.1.sif", False),
        ("localhost:5000/fmriprep:23.2.3", False),
    ],
)
def test_the_release_is_in_the_name_of_the_image(image, known):
    assert is_of_release(image) is known


def study(backend="fmriprep-docker", **preproc):
    return {"cohorts": {"a": {"input": "bids", "root": "x"}}, "preproc": {"backend": backend, **preproc}}


def test_mistakes_are_named_while_the_configuration_is_read():
    with pytest.raises(ConfigError) as refusal:
        check(study(fmriprep_args=["--use-aroma", "--cifti-output", "32k"], output_spaces=["Schaefer"]))
    said = str(refusal.value)
    assert "preproc.fmriprep_args: no option --use-aroma" in said
    assert "preproc.fmriprep_args: --cifti-output 32k" in said
    assert "preproc.output_spaces: no space 'Schaefer'" in said


@pytest.mark.parametrize(
    ("preproc", "said"),
    [
        (
            {"fs_license": "a", "fmriprep_args": ["--fs-license-file", "b"]},
            "also stated by preproc.fs_license",
        ),
        (
            {"fs_subjects_dir": "a", "fmriprep_args": ["--fs-no-reconall"]},
            "--fs-no-reconall contradicts preproc.fs_subjects_dir",
        ),
        ({"fmriprep_args": ["--anat-only"]}, "--anat-only makes no BOLD"),
        ({"image": ""}, "is the name of no image"),
        ({"image": "--privileged"}, "is the name of no image"),
        ({"fmriprep_args": "--fs-no-reconall"}, "fmriprep_args: Input should be a valid tuple"),
    ],
)
def test_keys_and_arguments_agree(preproc, said):
    with pytest.raises(ConfigError) as refusal:
        check(study(**preproc))
    [mistake] = refusal.value.mistakes
    assert said in mistake


def test_tasks_of_cohorts_and_arguments_agree():
    raw = study(fmriprep_args=["--task", "rest"])
    with pytest.raises(ConfigError, match="write `--task-id`"):
        check(raw)
    raw = study(fmriprep_args=["--task-i", "rest"])
    check(raw)
    raw["cohorts"]["a"]["tasks"] = ["rest", "nback"]
    with pytest.raises(ConfigError, match=r"--task-id rest contradicts cohorts\.a\.tasks, which decide"):
        check(raw)


def test_options_may_be_shortened_as_for_fmriprep():
    raw = study(fmriprep_args=["--cifti-out", "91k"])
    raw["cohorts"]["a"]["space"] = "fsLR"
    assert check(raw).cohorts["a"].space == "fsLR"


def test_the_parser_is_asked_with_the_paths_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = []
    monkeypatch.setattr(fmriprep_parser, "fmriprep_python", lambda: "python")
    monkeypatch.setattr(fmriprep_parser, "ask_lists", lambda python, lists, home: asked.extend(lists))
    arguments = ["--bids-filter", "~/f.json", "--deriv", "old=~/d", "--ignore=sbref"]
    fmriprep_parser.ask(check(study(fmriprep_args=arguments)))
    expected = [
        "--bids-filter-file",
        f"{tmp_path}/f.json",
        "--derivatives",
        f"old={tmp_path}/d",
        "--ignore",
        "sbref",
    ]
    assert asked[0][-6:] == expected


@pytest.mark.parametrize("space", ["fsLR", "fsaverage5"])
def test_a_cohort_on_surfaces_needs_them(space):
    raw = study(fmriprep_args=["--fs-no-reconall"], cifti_output="91k")
    raw["cohorts"]["a"]["space"] = space
    with pytest.raises(ConfigError, match="leave out --fs-no-reconall"):
        check(raw)


def test_paths_that_containers_cannot_take_are_mistakes(tmp_path: Path):
    file = tmp_path / "a:b.json"
    file.write_text("{}")
    [found] = fmriprep_mistakes(check(study(fmriprep_args=["--bids-filter-file", str(file)])))
    assert "contains ':' or ','" in found


def test_what_the_embedded_preprocessing_does_not_read_is_not_checked():
    checked = check(study("embedded", fmriprep_args=["--use-aroma"]))
    assert checked.preproc.fmriprep_args == ("--use-aroma",)


def test_an_image_of_another_release_is_warned_of(caplog):
    checked = check(study(fmriprep_args=["--use-aroma"], image="nipreps/fmriprep:22.1.1"))
    assert fmriprep_mistakes(checked) == []
    assert "--use-aroma" in caplog.text


def test_paths_that_are_not_there_are_mistakes(tmp_path: Path):
    (tmp_path / "filter.json").write_text("{}")
    arguments = ["--bids-filter-file", str(tmp_path / "filter.json"), "-d", f"old={tmp_path / 'none'}"]
    [found] = fmriprep_mistakes(check(study(fmriprep_args=arguments)))
    assert "--derivatives names" in found


def test_a_default_that_templateflow_does_not_have_is_not_asked_for():
    checked = check({**study(), "cohorts": {"a": {"input": "bids", "root": "x", "space": "PNC"}}})
    assert checked.preproc.of("PNC", 2.0).output_spaces == ("PNC",)


def test_a_parser_that_does_not_answer_is_ignored(tmp_path, monkeypatch):
    assert fmriprep_parser.ask_lists(sys.executable + "-none", [[]], None) is None
    monkeypatch.setenv("BHX_FMRIPREP_PYTHON", str(tmp_path / "python"))
    assert fmriprep_mistakes(check(study())) == []


#: Of `BAD`, what fMRIPrep's parser takes, and then obeys one word of two.
OBEYED_IN_PART = [
    ["--dummy-scans=4", "--dummy-scans", "5"],
    ["--ignore", "sbref", "--ignore", "t2w"],
    ["--msm", "--no-msm"],
    ["--force", "bbr", "no-bbr"],
]


def lists_of_shipped_studies():
    """Every list of arguments that BHX makes: each shipped configuration and recipe by each kind of cohort and keys."""
    lists = []
    for space in (
        "MNI152NLin2009cAsym",
        "MNI152NLin6Asym",
        "fsaverage5",
        "fsLR",
        "MNIPediatricAsym:cohort-3",
    ):
        for t1w_mm in (1.0, 2.0):
            for keys in ({}, {"level": "full"}, {"cifti_output": "170k"}, {"subject_anatomical_reference": "unbiased"},
                         {"subject_anatomical_reference": "sessionwise", "fs_subjects_dir": "."}):  # fmt: skip
                preproc = PreprocSection(backend="fmriprep-docker", **keys).of(space, t1w_mm).for_jobs()
                lists.append([*bhx_arguments(preproc, "01", 8, 21000), *given_words(preproc)])
    return lists


def test_the_real_parser_agrees():
    python = fmriprep_parser.fmriprep_python()
    if python is None:
        pytest.skip("fMRIPrep is not installed here (BHX_FMRIPREP_PYTHON names a Python that has it)")
    takes = {"nothing": 0, "one": 1, "one at most": 0, "one or more": 1}
    values = {"file": __file__, "folder": ".", "named folders": "a=.", "fraction": "0.5", "text": "x"}
    every = [
        [name, *[option.choices[0] if option.choices else values.get(option.kind, "1")] * takes[option.takes]]
        for option in OPTIONS
        for name in option.names
        if option.names[0] not in ("--output-spaces", "--skull-strip-template", "--bids-filter-file")
    ]
    spaces = [["--output-spaces", t] for t, found in TEMPLATES.items() if not found.cohorts]
    taken = [
        *lists_of_shipped_studies(),
        *GOOD,
        bhx_arguments({"output_spaces": GOOD_SPACES}, "01", 16, 21000),
        *every,
        *spaces,
    ]
    refused = [*(words for words, _ in BAD), *(["--output-spaces", space] for space, _ in BAD_SPACES)]
    answer = fmriprep_parser.ask_lists(python, [*taken, *refused], None)
    assert answer is not None
    said = dict(zip(map(tuple, [*taken, *refused]), answer.refusals, strict=True))
    assert {words: what for words, what in said.items() if what and list(words) in taken} == {}
    assert [words for words in refused if said[tuple(words)] is None] == OBEYED_IN_PART


KEYS = {
    "level": "full",
    "cifti_output": "91k",
    "subject_anatomical_reference": "sessionwise",
    "fs_subjects_dir": "/data/freesurfer",
}


def test_keys_are_options_of_fmriprep_and_come_before_the_users():
    preproc = check(study(**KEYS, fmriprep_args=["--fs-no-resume"])).preproc
    words = given_words(preproc.model_dump(mode="json"))
    assert words == [
        *("--level", "full", "--cifti-output", "91k", "--subject-anatomical-reference", "sessionwise"),
        *("--fs-subjects-dir", "/data/freesurfer", "--fs-no-resume"),
    ]
    assert argument_mistakes(words) == []
    assert given_words(check(study()).preproc.for_jobs()) == []


@pytest.mark.parametrize(("key", "value"), KEYS.items())
def test_what_is_stated_twice_is_a_mistake(key, value):
    words = [f"--{key.replace('_', '-')}", value]
    with pytest.raises(ConfigError, match=f"is also stated by preproc.{key}: leave one out"):
        check(study(**{key: value}, fmriprep_args=words))
    with pytest.raises(ConfigError):
        check(study(**{key: "none of them" if key != "fs_subjects_dir" else 3}))


@pytest.mark.parametrize("stated", [{"level": "minimal"}, {"fmriprep_args": ["--level", "resampling"]}])
def test_a_study_reads_what_only_the_full_level_writes(stated):
    with pytest.raises(ConfigError, match="no BOLD in standard space and no confounds, which a study reads"):
        check(study(**stated))


def test_grayordinates_make_the_bold_of_a_cohort_on_fslr():
    cohort = {"cohorts": {"a": {"input": "bids", "root": "x", "space": "fsLR"}}}
    check({**study(cifti_output="91k"), **cohort})
    with pytest.raises(ConfigError, match=r"set preproc\.cifti_output"):
        check({**study(), **cohort})


def test_jobs_are_given_what_was_set_and_no_more():
    before = check(study()).preproc.for_jobs()
    assert not {*KEYS, "surfaces"} & set(before)  # a key that is new to BHX runs nobody again
    assert check(study(level="full")).preproc.for_jobs() == {**before, "level": "full"}


def test_freesurfers_folder_has_to_be_there(tmp_path):
    checked = check(study(fs_subjects_dir=str(tmp_path / "none")))
    assert fmriprep_mistakes(checked) == [
        f"preproc.fs_subjects_dir names {tmp_path / 'none'}, which is not there"
    ]
    (tmp_path / "license.txt").write_text("somebody")
    preproc = {**checked.preproc.for_jobs(), "fs_license": str(tmp_path / "license.txt")}
    with pytest.raises(SiteError, match=r"preproc\.fs_subjects_dir names"):
        check_site(preproc, [])
