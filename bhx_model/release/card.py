"""The model card of an exported folder: usage, training data, and metadata of the ROIs."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from bhx_model import __version__
from bhx_model.config import FunctionConfig
from bhx_model.data.rois import RoiMetadata
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.training import target
from bhx_model.training.trained import Trained


def model_card(
    trained: Mapping[str, Trained],
    rois: RoiMetadata,
    terms: Mapping[str, str | None],
    *,
    lists_people: bool = False,
    t1w: Mapping[str, Any] = MappingProxyType({}),
    denoising: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    quality: Mapping[str, Mapping[str, Mapping[str, int]]] = MappingProxyType({}),
) -> str:
    """Fill the model card from what the runs recorded.

    Parameters
    ----------
    trained : Mapping[str, Trained]
        By stage; the function stage alone, or all three.
    rois : RoiMetadata
    terms : Mapping[str, str or None]
        Of the data of every cohort trained on; None if they are not stated.
    lists_people : bool
        Whether ``config.json`` says, as hashes, who was trained on.
    t1w : Mapping
        The T1s that are expected, see `T1wSpace.describe`; empty where they are not described.
    denoising : Mapping
        By cohort, how series were denoised; empty where it is not stated.
    quality : Mapping
        By cohort and modality, how many scans are used and excluded, by limits and by decisions; empty where it is not
        stated.

    Returns
    -------
    str
        Markdown.
    """
    runs = {stage: t.run for stage, t in trained.items()}
    function = cast(FunctionJEPA, trained["function"].model).config
    return f"""\
{front_matter(runs, rois, terms)}
# BrainHarmonix weights
{_warning(runs)}
{_what(runs)} (method: arXiv 2509.24693; trained by bhx {__version__}).

{_use(runs, function, rois)}

{_position(function, rois)}

## Inputs

{_series(denoising)}

{_t1w(t1w)}

{_training(runs)}

{_cohorts(runs)} {_people(lists_people)}

{_quality(quality)}

## Files

| file | content |
| --- | --- |
{_files(runs, function)}
{_t1w_file(t1w)}| `config.json` | configuration, sizes, counts and losses of every stage |

## Terms and limits

The code of bhx is under Apache-2.0. The weights are not: the terms of the data that they were trained on also hold for
them; they state whether and to whom these may be passed on:

{_terms(terms)}

The weights are for research, not for decisions about a patient or participant. Groups, scanners and repetition times
that are not among the cohorts above were not seen.
"""


def _warning(runs: Mapping[str, Mapping[str, Any]]) -> str:
    text = ""
    if any(run["synthetic"] for run in runs.values()):
        text += (
            "\n> **Synthetic data.** At least one cohort was simulated, not measured. These weights show that the code "
            "works;\n"
            "> they must not be used for any measured brain.\n"
        )
    if target.keeps_most_of_start(runs["function"]):
        text += _nearly_random(runs["function"])
    return text


def _use(runs: Mapping[str, Mapping[str, Any]], function: FunctionConfig, rois: RoiMetadata) -> str:
    return f"""\
## Use

```python
import bhx_model

model = bhx_model.from_pretrained("this/folder")
tokens = model.embed(series, tr_s=0.735, roi_names=names{", t1w=volume" if "fusion" in runs else ""})
```

`series` is (ROIs, frames): parcel means, denoised as the training data, **not** standardised; the model scales them
itself{_scaling(function)}. `names` must be the {len(rois)} ROIs of {rois.atlas} in the order of `rois.npz`
(first: `{rois.names[0]}`, last: `{rois.names[-1]}`). {_volume(runs)} A series must last {function.window_s:g} s or longer;
at most {function.time_patches} windows of that length are read."""


def _training(runs: Mapping[str, Mapping[str, Any]]) -> str:
    return f"""\
## Training

{_table(runs)}

Loss: mean of the last reports of the training; holdout: subjects not trained on; mean predictor: the loss of predicting
the mean for the same subjects. Where the holdout loss is not below it, the stage has learned nothing of use. That of the
function stage is about its own moving targets, so it compares within this run only; so does that of a whole run's
connectivity, which the function encoder predicts from a part of the run.

{_moved(runs["function"])}"""


def front_matter(
    runs: Mapping[str, Mapping[str, Any]], rois: RoiMetadata, terms: Mapping[str, str | None]
) -> str:
    """YAML at the top of a card, as model hubs read it.

    The licence is `other`: that of the data holds, in whatever words it was stated.
    """
    synthetic = any(run["synthetic"] for run in runs.values())
    tags = ["neuroimaging", "fmri", "brain", "foundation-model"]
    tags += ["t1w", "multimodal"] if "fusion" in runs else []
    tags += ["synthetic"] if synthetic else []
    value = {
        "license": "other",
        "license_name": "terms-of-the-training-data",
        "license_link": "README.md",
        "library_name": "bhx",
        "pipeline_tag": "feature-extraction",
        "tags": tags,
        "datasets": sorted(terms),
        "metrics": ["mse"],
        "atlas": rois.atlas,
    }
    # quoted as JSON, which YAML reads: a name such as `no` or `a: b` stays a text
    lines = [f"{key}: {json.dumps(entry, ensure_ascii=False)}" for key, entry in value.items()]
    return "\n".join(["---", *lines, "---"])


def escaped(text: str) -> str:
    """Text from data for a cell of a Markdown table, escaped so that it is never read as HTML, a link or another cell."""
    plain = " ".join(text.replace("|", "/").split())
    shown = html.escape(plain, quote=False)
    return re.sub(r"([\\`*_\[\]])", r"\\\1", shown)


def _series(denoising: Mapping[str, Mapping[str, Any]]) -> str:
    if not denoising:
        return "How the series were denoised is not stated."
    rows = [
        f"| {escaped(cohort)} | {escaped(str(how.get('strategy', 'not stated')))} | {escaped(str(how.get('what', '')))} |"
        for cohort, how in denoising.items()
    ]
    return "\n".join(
        [
            "Series were denoised as follows:\n",
            "| cohort | strategy | what it does |",
            "| --- | --- | --- |",
            *rows,
        ]
    )


def _t1w(t1w: Mapping[str, Any]) -> str:
    if not t1w:
        return "No T1 is described here."
    shape, zooms = (" x ".join(f"{n:g}" for n in t1w[name]) for name in ("shape", "zooms_mm"))
    low, high = t1w["intensity"]["percentiles"]
    return (
        f"T1s lie in {t1w['template']}: {shape} voxels of {zooms} mm, axes {t1w['axes']}, voxel to space (mm) by\n"
        f"`affine` in `config.json`. Outside of the brain mask they are 0; inside, (value - mean) / sd, both of the values\n"
        f"between the {low:g}th and the {high:g}th percentile. `embed` makes that of an image in this space, given as\n"
        "`t1w=` with its brain mask as `mask=`, and refuses one that is flipped, mirrored or shifted."
    )


def _t1w_file(t1w: Mapping[str, Any]) -> str:
    return (
        "| `t1w.npz` | the T1 that is expected: grid, and a coarse template to compare one with |\n"
        if t1w
        else ""
    )


def _nearly_random(run: Mapping[str, Any]) -> str:
    share = run["target"]["share_of_start"]
    return (
        f"\n> **These weights are nearly random.** The function encoder kept {share:.0%} of its random start: its training\n"
        "> was too short for its `train.ema`. What is read from its tokens, an untrained encoder gives.\n"
    )


def _moved(run: Mapping[str, Any]) -> str:
    """How far the function encoder moved from its random start."""
    if "target" not in run:
        return "How far the function encoder moved from its random start is not known."
    moved, share = run["target"]["moved"], run["target"]["share_of_start"]
    return (
        f"The function encoder is a moving average over its training, which kept {share:.1%} of its random start.\n"
        f"Its weights lie {moved:.3g} times the length of their start away from it (0: they are still random)."
    )


def _what(runs: Mapping[str, Mapping[str, Any]]) -> str:
    if "fusion" not in runs:
        return "A vision transformer over parcel series of resting fMRI, the function encoder alone"
    hub = runs["fusion"]["config"]["model"]
    return (
        "A vision transformer over T1 volumes, one over parcel series of resting fMRI, and a fusion of both into\n"
        f"{hub['hub_tokens']} hub tokens of width {hub['width']}"
    )


def _volume(runs: Mapping[str, Mapping[str, Any]]) -> str:
    if "fusion" not in runs:
        return "These weights take no T1: `embed` gives the\nfunction tokens."
    grid = " x ".join(str(n) for n in runs["structure"]["model_metadata"]["grid"])
    return f"`volume` is an intensity-normalised T1 of {grid} voxels. Without a\nT1, `embed` gives the function tokens."


def _position(function: FunctionConfig, rois: RoiMetadata) -> str:
    """Describe the position embedding of an ROI in the function encoder."""
    return f"{_fixed_position(function, rois)}{_connectivity(function)}"


def _connectivity(function: FunctionConfig) -> str:
    """What its tokens are given of the run at hand."""
    most = function.connectivity_code
    if not most:
        return ""
    return (
        f"\nIts tokens are also given its correlations, in the windows that are read, with up to {most}\n"
        "weighted means over ROIs, less the mean of the training runs."
    )


def _fixed_position(function: FunctionConfig, rois: RoiMetadata) -> str:
    gradients = f"{rois.gradients.shape[1]} connectivity gradients of the training subjects"
    if function.harmonics != "none":
        modes = f"{rois.n_harmonics} geometric harmonics of the cortex"
        return f"Position code of an ROI: {f'{gradients} and {modes}' if function.gradients else f'{modes} alone'}."
    why = (
        f"{rois.atlas} was used without a surface" if not rois.n_harmonics else "`model.harmonics` was `none`"
    )
    return f"Position code of an ROI: {gradients} alone, no harmonics, because {why}."


def _files(runs: Mapping[str, Mapping[str, Any]], function: FunctionConfig) -> str:
    parts = [
        name
        for name, on in (
            ("harmonics", function.harmonics != "none"),
            ("gradients", function.gradients),
        )
        if on
    ]
    buffers = f"{', '.join(['normaliser', *parts[:-1]])} and {parts[-1]}"
    code = ", the mean connectivity code of training runs too" if function.connectivity_code else ""
    rows = ["| `structure.safetensors` `fusion.safetensors` | weights |"] if "fusion" in runs else []
    return "\n".join([
        *rows,
        f"| `function.safetensors` | weights; {buffers} are buffers in it{code} |",
        "| `rois.npz` | ROI names and order, hemisphere, harmonics, gradients, normaliser |",
    ])  # fmt: skip


def _scaling(function: FunctionConfig) -> str:
    ranges = "by the medians and ranges in `rois.npz`"
    if function.scaling == "run":
        return f", {ranges} and by each run's own level and spread, so that units make no difference"
    return f", {ranges}, so they must have the units of the training data"


def _table(runs: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        "| stage | subjects | samples | seen | parameters | first loss | last loss | holdout | mean predictor |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for stage, run in runs.items():
        counts, loss = run["counts"], run["loss"]
        known = ("train_subjects", "train_samples", "samples_seen", "parameters")
        values = [
            *("not known" if counts[k] is None else f"{counts[k]:,}" for k in known),
            *(
                "none" if loss[k] is None else f"{loss[k]:.4g}"
                for k in ("first", "last", "holdout", "mean_predictor")
            ),
        ]
        rows.append(f"| {stage} | {' | '.join(values)} |")
        if "connectivity" in loss:
            pair = f"{loss['connectivity']:.4g} | {loss['connectivity_mean_predictor']:.4g}"
            rows.append(f"| {stage}, connectivity | | | | | | | {pair} |")
    return "\n".join(rows)


def _cohorts(runs: Mapping[str, Mapping[str, Any]]) -> str:
    converted = sorted({run["converted_from"] for run in runs.values() if "converted_from" in run})
    if converted:
        return f"Not trained here: converted from published checkpoints ({', '.join(converted)})."
    cohorts = sorted({cohort for run in runs.values() for cohort in run["cohorts"]})
    stage = "fusion" if "fusion" in runs else "function"
    what = "pairs of T1 and fMRI" if stage == "fusion" else "runs"
    n = runs[stage]["counts"]["holdout_samples"]
    return f"Cohorts: {', '.join(cohorts)}. {n} {what} were held out of the {stage}'s training."


def _people(listed: bool) -> str:
    if not listed:
        return "Who was trained on is not listed: a score may be of subjects that\nthese weights have seen."
    return (
        "Who was trained on stands in `config.json` as\nhashes (`people`), so that BHX refuses to test them."
    )


def _quality(quality: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """Scans of the cohorts that are used and excluded, and how many of them people decided on."""
    if not quality:
        return "How many scans quality control excluded is not stated."
    states = ("used", "kept by decision", "excluded", "excluded by decision")
    rows = [
        f"| {escaped(cohort)} | {escaped(modality)} | {' | '.join(f'{counts.get(state, 0):,}' for state in states)} |"
        for cohort, modalities in quality.items()
        for modality, counts in modalities.items()
    ]
    decided = [
        sum(counts.get(state, 0) for modalities in quality.values() for counts in modalities.values())
        for state in (states[3], states[1])
    ]
    return "\n".join(
        [
            f"Scans of these cohorts by quality control. People excluded {decided[0]:,} scans, and kept {decided[1]:,} that"
            " fail a limit:\n",
            f"| cohort | modality | {' | '.join(states)} |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
            *rows,
        ]
    )


def _terms(terms: Mapping[str, str | None]) -> str:
    if not terms:
        return "Terms of the data: not stated."
    rows = [
        f"| {cohort} | {'not stated' if stated is None else escaped(stated)} |"
        for cohort, stated in terms.items()
    ]
    return "\n".join(["| cohort | terms of its data |", "| --- | --- |", *rows])
