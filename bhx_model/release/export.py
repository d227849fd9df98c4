"""Export a trained experiment as a folder that others can use: weights, configuration, per-ROI metadata, model card.

Examples
--------
::

    python -m bhx_model.release.export --structure results/experiments/demo/structure \
        --function results/experiments/demo/function --fusion results/experiments/demo/fusion \
        --rois results/experiments/demo/subjects/rois.npz --terms terms.json --out results/experiments/demo/export
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import cast

from bhx_model import __version__, contract
from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.command_line import json_file, run_command
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import ConfigError, DataError
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.release import load
from bhx_model.release.card import model_card
from bhx_model.training.trained import load_trained


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when exported, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.release.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--function", type=Path, required=True, help="folder of the trained function stage")
    for stage in ("structure", "fusion"):
        parser.add_argument(
            f"--{stage}",
            type=Path,
            help=f"folder of the trained {stage} stage; without both, the function encoder alone",
        )
    parser.add_argument("--rois", type=Path, required=True, help="rois.npz of the experiment")
    parser.add_argument(
        "--terms",
        type=json_file,
        default={},
        metavar="FILE",
        help='licence or data use agreement of each cohort, for the model card: JSON, e.g. {"pretraining": "CC0"}',
    )
    parser.add_argument(
        "--people",
        type=json_file,
        default={},
        metavar="FILE",
        help="pretrain.json, which lists who was trained on",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the export")
    a = parser.parse_args(argv)
    return run_command(
        lambda: export(
            a.function,
            a.rois,
            a.out,
            structure=a.structure,
            fusion=a.fusion,
            terms=a.terms,
            people=a.people.get("people"),
        )
    )


def export(
    function: Path,
    rois: Path,
    out: Path,
    *,
    structure: Path | None = None,
    fusion: Path | None = None,
    terms: Mapping[str, str | None] = MappingProxyType({}),
    people: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the folder: a safetensors file per stage, ``config.json``, ``rois.npz`` and ``README.md``.

    Parameters
    ----------
    function : Path
        Folder of the trained stage.
    rois : Path
        The experiment's ``rois.npz``: ROI names and order, normaliser, harmonics, gradients.
    out : Path
        Made if absent.
    structure, fusion : Path, optional
        Folders of these trained stages; without both, the function encoder is exported alone.
    terms : Mapping[str, str or None]
        Licence or data use agreement of each cohort trained on; for others the card says that it is not stated.
    people : Mapping[str, Sequence[str]], optional
        Hashes, by kind, of who was trained on: so that nobody who has the weights is tested on them unawares.

    Raises
    ------
    DataError
        If the stages or the ROI metadata do not belong together.
    ConfigError
        If there are terms of a cohort that no stage was trained on, terms that are no text, or only one of `structure`
        and `fusion`.
    """
    if (structure is None) != (fusion is None):
        raise ConfigError(
            "the stages structure and fusion are exported together: name both folders or neither"
        )
    folders = {"function": function}
    if structure and fusion:
        folders = {"structure": structure, "function": function, "fusion": fusion}
    trained = {stage: load_trained(folder, stage) for stage, folder in folders.items()}
    if fusion:
        encoders = {stage: trained[stage].sha256 for stage in ("structure", "function")}
        if trained["fusion"].run["model_metadata"]["encoders"] != encoders:
            msg = f"{fusion} belongs to other encoders than {structure} and {function}: name those"
            raise DataError(msg)
    metadata = RoiMetadata.load(rois)
    model = cast(FunctionJEPA, trained["function"].model)
    load.check_rois(model, metadata, trained["function"].run["model_metadata"])
    cohorts = sorted({cohort for t in trained.values() for cohort in t.run["cohorts"]})
    if not isinstance(terms, Mapping) or not all(t is None or isinstance(t, str) for t in terms.values()):
        msg = "the terms of a cohort are a text, or null where they are not stated: write {cohort: text}"
        raise ConfigError(msg)
    unknown = sorted(terms.keys() - cohorts)
    if unknown:
        msg = f"terms of {unknown[0]}, on which no stage was trained: there are {', '.join(cohorts) or 'no cohorts'}"
        raise ConfigError(msg)
    known = {cohort: terms.get(cohort) for cohort in cohorts}
    listed = people and {k: list(v) for k, v in people.items() if k not in contract.PEOPLE_OF_STUDY}
    for stage, folder in folders.items():
        _copy(folder / "model.safetensors", out / f"{stage}.safetensors")
    _copy(rois, out / "rois.npz")
    about = {
        "export": load.EXPORT_VERSION,
        "bhx": __version__,
        "synthetic": any(t.run["synthetic"] for t in trained.values()),
        "terms": known,
        **({"people": listed} if listed else {}),
        "stages": {
            stage: {
                **{
                    k: t.run[k]
                    for k in ("config", "model_metadata", "counts", "loss", "target", "seed")
                    if k in t.run
                },
                "sha256": t.sha256,
            }
            for stage, t in trained.items()
        },
    }
    with atomic_write(out / "README.md") as part:
        part.write_text(model_card(trained, metadata, known, lists_people=bool(listed)), encoding="utf-8")
    write_json(out / "config.json", about)


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as part:
        shutil.copyfile(source, part)


if __name__ == "__main__":
    sys.exit(main())
