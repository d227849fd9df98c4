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
from typing import Any, Final, cast

from bhx_model import __version__, contract
from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.command_line import json_file, run_command
from bhx_model.data import t1w_space
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.t1w_space import T1wSpace
from bhx_model.errors import ConfigError, DataError
from bhx_model.file_hash import file_sha256
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.release import load
from bhx_model.release.card import model_card
from bhx_model.training.trained import Trained, load_trained


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when exported, 1 after an error of the user's."""
    a = _parser().parse_args(argv)
    return run_command(
        lambda: export(
            a.function,
            a.rois,
            a.out,
            structure=a.structure,
            fusion=a.fusion,
            terms=a.terms,
            people=a.people.get("people"),
            t1w=a.t1w,
            denoising=a.denoising,
            quality={counts["cohort"]: counts["scans"] for counts in a.quality},
        )
    )


def _parser() -> argparse.ArgumentParser:
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
    parser.add_argument(
        "--t1w",
        type=Path,
        metavar="FILE",
        help="t1w.npz, which describes the T1s (`bhx_prep.features.t1w_space`)",
    )
    parser.add_argument(
        "--denoising",
        type=json_file,
        default={},
        metavar="FILE",
        help="how the series of each cohort were denoised, JSON: {cohort: {input, strategy, ..}}",
    )
    parser.add_argument(
        "--quality",
        type=json_file,
        nargs="*",
        default=[],
        metavar="FILE",
        help="how many scans of each cohort are used and excluded, by limits and by decisions of people: JSON files",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the export")
    return parser


#: What ``config.json`` says of a stage, out of its ``run.json``.
_OF_RUN: Final = ("config", "model_metadata", "counts", "loss", "target", "seed")


def export(
    function: Path,
    rois: Path,
    out: Path,
    *,
    structure: Path | None = None,
    fusion: Path | None = None,
    terms: Mapping[str, str | None] = MappingProxyType({}),
    people: Mapping[str, Sequence[str]] | None = None,
    t1w: Path | None = None,
    denoising: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    quality: Mapping[str, Mapping[str, Mapping[str, int]]] = MappingProxyType({}),
) -> None:
    """Write the folder: a safetensors file per stage, ``config.json``, ``rois.npz``, ``t1w.npz`` and ``README.md``.

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
    t1w : Path, optional
        Description of the T1s, see `bhx_model.data.t1w_space`; without it an export takes arrays on the grid alone.
    denoising : Mapping[str, Mapping[str, Any]]
        How the series of each cohort were denoised.
    quality : Mapping
        By cohort and modality, how many scans are in which state.

    Raises
    ------
    DataError
        If the stages or the ROI metadata do not belong together.
    ConfigError
        If there are terms of a cohort that no stage was trained on, terms that are no text, or only one of `structure`
        and `fusion`.
    """
    folders = _folders(function, structure, fusion)
    trained = {stage: load_trained(folder, stage) for stage, folder in folders.items()}
    _check_encoders(folders, trained)
    metadata = RoiMetadata.load(rois)
    model = cast(FunctionJEPA, trained["function"].model)
    load.check_rois(model, metadata, trained["function"].run["model_metadata"])
    cohorts = sorted({cohort for t in trained.values() for cohort in t.run["cohorts"]})
    known = _terms_of(cohorts, terms)
    listed = people and {k: list(v) for k, v in people.items() if k not in contract.PEOPLE_OF_STUDY}
    described = _describe_t1w(t1w, trained) if t1w is not None and structure else {}
    denoised = {cohort: dict(denoising[cohort]) for cohort in cohorts if cohort in denoising}
    checked = {cohort: dict(quality[cohort]) for cohort in cohorts if cohort in quality}
    for stage, folder in folders.items():
        _copy(folder / "model.safetensors", out / f"{stage}.safetensors")
    if t1w is not None and described:
        _copy(t1w, out / t1w_space.FILE)
    _copy(rois, out / "rois.npz")
    about = _about(
        trained,
        rois={"sha256": file_sha256(rois)},
        terms=known,
        people=listed,
        t1w=described,
        denoising=denoised,
        quality=checked,
    )
    with atomic_write(out / "README.md") as part:
        card = model_card(
            trained,
            metadata,
            known,
            lists_people=bool(listed),
            t1w=described,
            denoising=denoised,
            quality=checked,
        )
        part.write_text(card, encoding="utf-8")
    write_json(out / "config.json", about)


def _folders(function: Path, structure: Path | None, fusion: Path | None) -> dict[str, Path]:
    """Folders of the stages that are exported, by stage."""
    if (structure is None) != (fusion is None):
        raise ConfigError(
            "the stages structure and fusion are exported together: name both folders or neither"
        )
    if structure and fusion:
        return {"structure": structure, "function": function, "fusion": fusion}
    return {"function": function}


def _about(trained: Mapping[str, Trained], **known: Any) -> dict[str, Any]:
    """Content of ``config.json``; of what is `known`, only the terms are there when they are empty."""
    return {
        "export": load.EXPORT_VERSION,
        "bhx": __version__,
        "synthetic": any(t.run["synthetic"] for t in trained.values()),
        **{name: value for name, value in known.items() if value or name == "terms"},
        "stages": {
            stage: {**{key: t.run[key] for key in _OF_RUN if key in t.run}, "sha256": t.sha256}
            for stage, t in trained.items()
        },
    }


def _check_encoders(folders: Mapping[str, Path], trained: Mapping[str, Trained]) -> None:
    """Refuse a fusion stage of other encoders."""
    if "fusion" not in trained:
        return
    encoders = {stage: trained[stage].sha256 for stage in ("structure", "function")}
    if trained["fusion"].run["model_metadata"]["encoders"] != encoders:
        named = f"{folders['structure']} and {folders['function']}"
        msg = f"{folders['fusion']} belongs to other encoders than {named}: name those"
        raise DataError(msg)


def _terms_of(cohorts: Sequence[str], terms: Mapping[str, str | None]) -> dict[str, str | None]:
    """Terms of every cohort that was trained on; None where they are not stated."""
    if not isinstance(terms, Mapping) or not all(t is None or isinstance(t, str) for t in terms.values()):
        msg = "the terms of a cohort are a text, or null where they are not stated: write {cohort: text}"
        raise ConfigError(msg)
    unknown = sorted(terms.keys() - set(cohorts))
    if unknown:
        msg = f"terms of {unknown[0]}, on which no stage was trained: there are {', '.join(cohorts) or 'no cohorts'}"
        raise ConfigError(msg)
    return {cohort: terms.get(cohort) for cohort in cohorts}


def _describe_t1w(path: Path, trained: Mapping[str, Trained]) -> dict[str, Any]:
    """What ``config.json`` states about the T1s; refused if they are of another grid than the weights'."""
    try:
        space = T1wSpace.load(path)
    except OSError as error:
        msg = (
            f"{path} cannot be read ({error.strerror}): make it with `python -m bhx_prep.features.t1w_space`"
        )
        raise DataError(msg) from error
    grid = tuple(trained["structure"].run["model_metadata"]["grid"])
    if space.grid.shape != grid:
        msg = (
            f"{path} describes T1s of {space.grid.shape} voxels, the weights' grid is {grid}: describe those"
        )
        raise DataError(msg)
    return {**space.describe(), "file": t1w_space.FILE, "sha256": file_sha256(path)}


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as part:
        shutil.copyfile(source, part)


if __name__ == "__main__":
    sys.exit(main())
