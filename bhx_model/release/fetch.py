"""Take over weights trained outside the study: check them, and put them where those of a training would be.

Examples
--------
::

    python -m bhx_model.release.fetch stage --weights export --stage function --atlas results/templates/atlas.json --out F
    python -m bhx_model.release.fetch rois --weights export --atlas results/templates/atlas.json --out F/rois.npz
    python -m bhx_model.release.fetch export --weights https://example.org/weights/ --out F
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bhx_model import given_weights
from bhx_model.atomic_write import atomic_write, read_json, write_json
from bhx_model.command_line import run_command
from bhx_model.config import STAGES
from bhx_model.contract import roi_sha256
from bhx_model.data.rois import RoiMetadata
from bhx_model.errors import DataError
from bhx_model.file_hash import file_sha256
from bhx_model.nets.factory import empty_rois
from bhx_model.release import load
from bhx_model.release.hub import FILES, find_export
from bhx_model.training.trained import load_trained

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when done, 1 after an error of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.release.fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="what", required=True)
    for name, text in (("stage", "weights of a stage"), ("rois", "metadata of the ROIs that go with them")):
        one = commands.add_parser(name, help=text)
        one.add_argument("--weights", type=Path, required=True, help="folder of the weights")
        one.add_argument("--atlas", type=Path, help="atlas.json of the study, whose ROIs these have to be")
        one.add_argument("--out", type=Path, required=True)
        if name == "stage":
            one.add_argument("--stage", choices=STAGES, required=True)
    whole = commands.add_parser("export", help="a whole export: a URL, org/name on the Hub, or a folder")
    whole.add_argument("--weights", required=True, help="URL, org/name, or folder")
    whole.add_argument("--out", type=Path, required=True)
    a = parser.parse_args(argv)
    if a.what == "export":
        return run_command(lambda: fetch_export(a.weights, a.out))
    if a.what == "rois":
        return run_command(lambda: fetch_rois(a.weights, a.out, a.atlas))
    return run_command(lambda: fetch_stage(a.weights, a.stage, a.out, a.atlas))


def fetch_stage(folder: Path, stage: str, out: Path, atlas: Path | None = None) -> None:
    """Write the folder of a stage: ``model.safetensors``, and ``run.json`` with what is known of it.

    That includes who was trained on, as hashes (``people``), where the weights' card or the list beside them says so.

    Parameters
    ----------
    folder : Path
        With weights, as `given_weights.find` understands it.
    stage : str
    out : Path
        Made if absent.
    atlas : Path, optional
        ``atlas.json`` of the study; the function stage is refused if its ROIs are others, or in another order.

    Raises
    ------
    ConfigError
        If the folder holds no weights.
    DataError
        If it lacks the stage, the weights are not those that it describes, or their ROIs are not the study's.
    """
    given = given_weights.find(folder)
    if stage not in given:
        msg = f"{folder} holds {', '.join(given)}, but no {stage}: leave it out of `stages`"
        raise DataError(msg)
    run = given[stage].describe()
    sha256 = file_sha256(given[stage].weights)
    if sha256 != run.pop("sha256", sha256):
        msg = f"{given[stage].weights} is not the file that was exported (sha256 differs): copy it again, or export again"
        raise DataError(msg)
    if stage == "function" and atlas is not None:
        metadata = run.get("model_metadata")
        if not isinstance(metadata, dict) or "roi_names" not in metadata:
            msg = f"{given[stage].about} names no ROIs: take the weights as they were made"
            raise DataError(msg)
        _check_atlas(empty_rois(metadata), folder, atlas)
    if (people := given_weights.people(folder, stage)) is not None:
        run["people"] = people
    with atomic_write(out / "model.safetensors") as part:
        shutil.copyfile(given[stage].weights, part)
    write_json(out / "run.json", {**run, "given": {"folder": folder.name, "sha256": sha256}})
    load_trained(out, stage)
    logger.info("%s: weights of %s, %s", stage, folder, _history(run))


def fetch_export(weights: str, out: Path) -> None:
    """Copy an export into a folder, from wherever it is; ``config.json`` last.

    Raises
    ------
    DataError, SiteError
        If there is none, or it cannot be downloaded.
    """
    folder = find_export(weights)
    about = load.read_about(folder)
    for name in sorted(FILES, key=lambda name: name == "config.json"):
        if (folder / name).exists():
            with atomic_write(out / name) as part:
                shutil.copyfile(folder / name, part)
    logger.info("%s: an export with %s", out, ", ".join(about["stages"]))


def fetch_rois(folder: Path, out: Path, atlas: Path | None = None) -> None:
    """Write the metadata of the ROIs that go with given weights.

    Raises
    ------
    DataError
        If there are none, or they are not of the study's ROIs.
    """
    path = given_weights.rois(folder)
    if path is None:
        msg = f"{folder} has no rois.npz: give `bhx_model.compat load` one by --rois, or name the export's folder"
        raise DataError(msg)
    metadata = RoiMetadata.load(path)
    if atlas is not None:
        _check_atlas(metadata, folder, atlas)
    metadata.save(out)


def _check_atlas(known: RoiMetadata, folder: Path, atlas: Path) -> None:
    """Refuse weights of other ROIs than a study's, or of another order."""
    ours = read_json(atlas, "run the step fetch_templates again")
    if roi_sha256(ours["label"], ours["names"]) == known.roi_sha256:
        return
    try:
        known.check_order(ours["names"])
    except DataError as error:
        msg = f"{folder} is of other ROIs than this study: {error}, or set `atlas` to that of the weights"
        raise DataError(msg) from error
    msg = f"{folder} is of atlas {known.atlas}, this study of {ours['label']}: set `atlas` to that of the weights"
    raise DataError(msg)


def _history(run: dict[str, Any]) -> str:
    cohorts = run.get("cohorts")
    return f"trained on {', '.join(cohorts)}" if cohorts else "trained on subjects that are not known"


if __name__ == "__main__":
    sys.exit(main())
