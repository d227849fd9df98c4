"""Export a trained experiment as a folder that others can use: weights, configuration, per-ROI metadata, model card.

Examples
--------
::

    python -m bhx_model.release.export --structure results/experiments/demo/structure \
        --function results/experiments/demo/function --fusion results/experiments/demo/fusion \
        --rois results/experiments/demo/rois.npz --terms terms.json --out results/experiments/demo/export
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from bhx_model import __version__
from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.command_line import json_file, run_command
from bhx_model.config import FunctionConfig
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import ConfigError, DataError
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.release import embed
from bhx_model.training.trained import Trained, load_trained


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when exported, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.release.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for stage in ("structure", "function", "fusion"):
        parser.add_argument(
            f"--{stage}", type=Path, required=True, help=f"folder of the trained {stage} stage"
        )
    parser.add_argument("--rois", type=Path, required=True, help="rois.npz of the experiment")
    parser.add_argument(
        "--terms",
        type=json_file,
        default={},
        metavar="FILE",
        help='licence or data use agreement of each cohort, for the model card: JSON, e.g. {"pretraining": "CC0"}',
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the export")
    a = parser.parse_args(argv)
    return run_command(lambda: export(a.structure, a.function, a.fusion, a.rois, a.out, terms=a.terms))


def export(
    structure: Path,
    function: Path,
    fusion: Path,
    rois: Path,
    out: Path,
    *,
    terms: Mapping[str, str | None] = MappingProxyType({}),
) -> None:
    """Write the folder: three safetensors files, ``config.json``, ``rois.npz`` and ``README.md``.

    Parameters
    ----------
    structure, function, fusion : Path
        Folders of the trained stages.
    rois : Path
        The experiment's ``rois.npz``: ROI names and order, normaliser, harmonics, gradients.
    out : Path
        Made if absent.
    terms : Mapping[str, str or None]
        Licence or data use agreement of each cohort trained on; for others the card says that it is not stated.

    Raises
    ------
    DataError
        If the stages or the ROI metadata do not belong together.
    ConfigError
        If there are terms of a cohort that no stage was trained on, or terms that are no text.
    """
    folders = {"structure": structure, "function": function, "fusion": fusion}
    trained = {stage: load_trained(folder, stage) for stage, folder in folders.items()}
    encoders = {stage: trained[stage].sha256 for stage in ("structure", "function")}
    if trained["fusion"].run["model_metadata"]["encoders"] != encoders:
        msg = f"{fusion} belongs to other encoders than {structure} and {function}: name those"
        raise DataError(msg)
    metadata = RoiMetadata.load(rois)
    model = cast(FunctionJEPA, trained["function"].model)
    embed.check_rois(model, metadata, trained["function"].run["model_metadata"])
    cohorts = sorted({cohort for t in trained.values() for cohort in t.run["cohorts"]})
    if not isinstance(terms, Mapping) or not all(t is None or isinstance(t, str) for t in terms.values()):
        msg = "the terms of a cohort are a text, or null where they are not stated: write {cohort: text}"
        raise ConfigError(msg)
    unknown = sorted(terms.keys() - cohorts)
    if unknown:
        msg = f"terms of {unknown[0]}, on which no stage was trained: there are {', '.join(cohorts) or 'no cohorts'}"
        raise ConfigError(msg)
    known = {cohort: terms.get(cohort) for cohort in cohorts}
    for stage, folder in folders.items():
        _copy(folder / "model.safetensors", out / f"{stage}.safetensors")
    _copy(rois, out / "rois.npz")
    about = {
        "export": embed.EXPORT_VERSION,
        "bhx": __version__,
        "synthetic": any(t.run["synthetic"] for t in trained.values()),
        "terms": known,
        "stages": {
            stage: {
                **{k: t.run[k] for k in ("config", "model_metadata", "counts", "loss")},
                "sha256": t.sha256,
            }
            for stage, t in trained.items()
        },
    }
    with atomic_write(out / "README.md") as part:
        part.write_text(model_card(trained, metadata, known), encoding="utf-8")
    write_json(out / "config.json", about)


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as part:
        shutil.copyfile(source, part)


def model_card(trained: Mapping[str, Trained], rois: RoiMetadata, terms: Mapping[str, str | None]) -> str:
    """Fill the model card from what the runs recorded.

    Parameters
    ----------
    trained : Mapping[str, Trained]
        By stage.
    rois : RoiMetadata
    terms : Mapping[str, str or None]
        Of the data of every cohort trained on; None if they are not stated.

    Returns
    -------
    str
        Markdown.
    """
    runs = {stage: t.run for stage, t in trained.items()}
    function = cast(FunctionJEPA, trained["function"].model).config
    hub = runs["fusion"]["config"]["model"]
    grid = " x ".join(str(n) for n in runs["structure"]["model_metadata"]["grid"])
    synthetic = any(run["synthetic"] for run in runs.values())
    warning = (
        "\n> **Synthetic data.** At least one cohort was simulated, not measured. These weights show that the code works;\n"
        "> they must not be used for any measured brain.\n"
        if synthetic
        else ""
    )
    return f"""\
---
library_name: bhx
tags: [neuroimaging, fmri, t1w, foundation-model]
---
# BrainHarmonix weights
{warning}
A vision transformer over T1 volumes, one over parcel series of resting fMRI, and a fusion of both into
{hub["hub_tokens"]} hub tokens of width {hub["width"]} (method: arXiv 2509.24693; trained by bhx {__version__}).

## Use

```python
import bhx_model

model = bhx_model.from_pretrained("this/folder")
tokens = model.embed(series, tr_s=0.735, roi_names=names, t1w=volume)
```

`series` is (ROIs, frames): parcel means, denoised as the training data, **not** standardised; the model scales them
itself{_scaling(function)}. `names` must be the {len(rois)} ROIs of {rois.atlas} in the order of `rois.npz`
(first: `{rois.names[0]}`, last: `{rois.names[-1]}`). `volume` is an intensity-normalised T1 of {grid} voxels. Without a
T1, `embed` gives the function tokens. A series must last {function.window_s:g} s or longer;
at most {function.time_patches} windows of that length are read.

## Training

{_table(runs)}

Loss: mean of the last reports of the training; holdout: subjects not trained on; mean predictor: the loss of predicting
the mean for the same subjects. Where the holdout loss is not below it, the stage has learned nothing of use. That of the
function stage is about its own moving targets, so it compares within this run only.

{_cohorts(runs)}

## Files

| file | content |
| --- | --- |
| `structure.safetensors` `fusion.safetensors` | weights |
| `function.safetensors` | weights; normaliser, harmonics and gradients are buffers in it |
| `rois.npz` | ROI names and order, hemisphere, harmonics, gradients, normaliser |
| `config.json` | configuration, sizes, counts and losses of every stage |

## Terms and limits

The terms of the data that the weights were trained on also hold for the weights; they state whether and to whom these
may be passed on:

{_terms(terms)}

The weights are for research, not for decisions about a patient or participant. Groups, scanners and repetition times
that are not among the cohorts above were not seen.
"""


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
    return "\n".join(rows)


def _cohorts(runs: Mapping[str, Mapping[str, Any]]) -> str:
    converted = sorted({run["converted_from"] for run in runs.values() if "converted_from" in run})
    if converted:
        return f"Not trained here: converted from published checkpoints ({', '.join(converted)})."
    cohorts = sorted({cohort for run in runs.values() for cohort in run["cohorts"]})
    n = runs["fusion"]["counts"]["holdout_samples"]
    return f"Cohorts: {', '.join(cohorts)}. {n} pairs of T1 and fMRI were held out of the fusion's training."


def _terms(terms: Mapping[str, str | None]) -> str:
    if not terms:
        return "Terms of the data: not stated."
    rows = [
        f"| {cohort} | {'not stated' if stated is None else ' '.join(stated.replace('|', '/').split())} |"
        for cohort, stated in terms.items()
    ]
    return "\n".join(["| cohort | terms of its data |", "| --- | --- |", *rows])


if __name__ == "__main__":
    sys.exit(main())
