"""Turn planned series into files of a BIDS dataset: convert, de-identify, check, move into place."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib

from bhx_model.atomic_write import atomic_write, read_json, write_json
from bhx_model.errors import ConfigError, DataError
from bhx_prep.dicom import convert, dataset, deface, plan, sidecar
from bhx_prep.dicom.convert import Image
from bhx_prep.dicom.plan import CONVERT, Planned
from bhx_prep.dicom.series_map import DATATYPES, SeriesMap
from bhx_prep.preproc import disks, one_at_a_time

logger = logging.getLogger(__name__)

DONE = "converted"
THERE = "there already"


def write(planned: Sequence[Planned], mapping: SeriesMap, out: Path) -> None:
    """Convert what is planned; what becomes of each series is noted in it.

    Parameters
    ----------
    planned : sequence of Planned
        Their outcomes become `DONE`, `THERE` or `plan.FAILED`.
    mapping : SeriesMap
    out : Path
        The dataset.

    Raises
    ------
    ConfigError
        If `out` has files of somebody else's.
    SiteError
        If dcm2niix, or what takes off faces, is not there, or another process writes there.
    """
    convert.program()
    dataset.begin(out, mapping.name, _kind_of(mapping.deface), mapping.participants)
    with one_at_a_time.hold(out / ".ingest.lock", f"{out} is being written"):
        _write_all(planned, mapping, out)


def _write_all(planned: Sequence[Planned], mapping: SeriesMap, out: Path) -> None:
    rows: dict[str, Mapping[str, str]] = {}
    # a session's T1w first, which shows where the face is on others; field maps last, which name the runs they are for
    for one in sorted((one for one in planned if one.outcome == CONVERT), key=_order):
        try:
            one.outcome = _write(one, planned, mapping, out)
        except DataError as error:
            one.fail(str(error))
            logger.warning("sub-%s, series %s: %s", one.subject, one.series.number, error)
            continue
        rows.setdefault(f"sub-{one.subject}", dataset.person(one.series, mapping.participants))
    if rows:
        dataset.add_participants(out, rows)
    dataset.state_faces(out)


def _kind_of(method: Any) -> str:
    """In what way faces are taken off: a command's words may name places."""
    return method if isinstance(method, str) else "command"


def _order(one: Planned) -> tuple[str, str, bool, bool, str]:
    suffix = str(one.target.suffix)
    return one.subject, one.session, suffix != "T1w", DATATYPES[suffix] == "fmap", one.file


def _write(one: Planned, planned: Sequence[Planned], mapping: SeriesMap, out: Path) -> str:
    record = dataset.Record(out, one.subject, one.session)
    method = mapping.deface if _has_face(one) else "none"
    source = dataset.source_hash(one.series, method)
    if record.is_done(one.file, source):
        _add_intended_for(_intended_for(one, planned, record), record.entries[one.file]["files"], out)
        return THERE
    with tempfile.TemporaryDirectory(prefix="bhx-ingest-") as name:
        work = Path(name)
        images = convert.convert(one.series.files.values(), work)
        named = name_images(one, images)
        for path, image in named.items():
            _check(image, path)
            if _has_face(one):
                _take_off_face(image, method, one, out, work)
        described = {path: describe(one, image, out) for path, image in named.items()}
        files = [f"{path}{ending}" for path in named for ending in (".nii.gz", ".json")]
        record.add(one.file, source, files, _kind_of(method) if _has_face(one) else None)
        for path, image in named.items():
            part = work / "packed.nii.gz"
            with disks.writing_to(work.parent):
                convert.compress(image.path, part)
            with disks.writing_to(out):
                with atomic_write(out / f"{path}.nii.gz") as place:
                    shutil.copyfile(part, place)
                write_json(out / f"{path}.json", {**described[path], **_intended(one, planned, record)})
    logger.info(
        "sub-%s, series %s: %d files, %s", one.subject, one.series.number, len(one.series.files), one.file
    )
    return DONE


def _has_face(one: Planned) -> bool:
    return DATATYPES[str(one.target.suffix)] == "anat"


def name_images(one: Planned, images: Sequence[Image]) -> dict[Path, Image]:
    """Names, without endings, of what dcm2niix made of a series.

    Raises
    ------
    DataError
        If it made several images that are no echoes, or echoes of what has one name.
    """
    suffix = str(one.target.suffix)
    if len(images) == 1:
        return {plan.path(one): images[0]}
    echoes = Counter(image.echo for image in images)
    distinct = "" not in echoes and max(echoes.values()) == 1
    if distinct and suffix in ("bold", "sbref"):
        return {plan.path(one, echo=image.echo): image for image in images}
    if distinct and len(images) == 2 and suffix in ("magnitude", "magnitude1"):
        return {plan.path(one, suffix=f"magnitude{image.echo}"): image for image in images}
    msg = f"dcm2niix makes {len(images)} images of it, which one name cannot tell apart: map a series with one {suffix}"
    raise DataError(msg)


def _check(image: Image, path: Path) -> None:
    """Refuse images that are not what their names say."""
    with image.path.open("rb") as file:
        shape = nib.Nifti1Header.from_fileobj(file).get_data_shape()
    frames = shape[3] if len(shape) > 3 else 1
    suffix = path.name.rpartition("_")[2]
    is_phase = suffix in ("phasediff", "phase1", "phase2", "fieldmap")
    if image.phase and not is_phase:
        raise DataError(
            f"it is a phase image, and a {suffix} is a magnitude: map that series, by image_type: M"
        )
    if is_phase and suffix != "fieldmap" and {"M", "MAGNITUDE"} & set(image.image_type):
        raise DataError(
            f"it is a magnitude, and a {suffix} is a phase image: map that series, by image_type: P"
        )
    if suffix == "bold" and frames < 2:
        raise DataError("it has one volume, and a bold run has several: is it an sbref?")
    if suffix in ("T1w", "T2w", "FLAIR") and (frames > 1 or min(shape[:3]) < 2):
        raise DataError(f"it has the shape {'x'.join(map(str, shape))}, and a {suffix} is one volume")
    if suffix == "bold" and not image.sidecar.get("RepetitionTime"):
        raise DataError("its headers state no repetition time, which a bold run needs")


def _take_off_face(image: Image, method: Any, one: Planned, out: Path, work: Path) -> None:
    if method == "none":
        return
    if method != "face":
        own = work / "deface"
        own.mkdir(exist_ok=True)
        deface.call(method, image.path, own)
        return
    reference = image.path
    if one.target.suffix != "T1w":
        folder = (out / plan.path(one)).parent
        found = sorted(folder.glob("*_T1w.nii.gz"))
        if not found:
            msg = f"the face of a {one.target.suffix} is found by a T1w of its session, and there is none: map one"
            raise DataError(msg)
        reference = found[0]
    share = deface.cut(image.path, deface.find_plane(reference))
    logger.info(
        "sub-%s, series %s: %.0f %% of the image cut off with the face",
        one.subject,
        one.series.number,
        100 * share,
    )


def _intended(one: Planned, planned: Sequence[Planned], record: dataset.Record) -> dict[str, list[str]]:
    runs = _intended_for(one, planned, record)
    return {"IntendedFor": runs} if runs else {}


def _intended_for(one: Planned, planned: Sequence[Planned], record: dataset.Record) -> list[str]:
    """Runs of its session that a field map is for, as URIs of BIDS."""
    if DATATYPES[str(one.target.suffix)] != "fmap":
        return []
    tasks = one.target.intended_for
    runs = [
        other.file
        for other in planned
        if (other.subject, other.session) == (one.subject, one.session)
        and other.rule is not None
        and other.rule.suffix == "bold"
        and (tasks is None or other.rule.task in tasks)
    ]
    written = [name for run in runs for name in record.entries.get(run, {}).get("files", ())]
    return [f"bids::{name}" for name in written if name.endswith(".nii.gz")]


def _add_intended_for(runs: Sequence[str], files: Sequence[str], out: Path) -> None:
    """Add runs that were converted later than the field map to its sidecars; nothing else in them is changed."""
    for path in (out / name for name in files if runs and name.endswith(".json")):
        about = read_json(path, "remove it, and start again")
        stated = about.get("IntendedFor", [])
        known = [stated] if isinstance(stated, str) else stated
        if missing := [run for run in runs if run not in known]:
            write_json(path, {**about, "IntendedFor": [*known, *missing]})


def describe(one: Planned, image: Image, out: Path) -> dict[str, Any]:
    """Sidecar of an image, but for the runs it is for: what is allowed of dcm2niix's, and what the map says.

    Raises
    ------
    DataError
        If it is a phase difference and nothing states its two echo times.
    """
    found = sidecar.clean(image.sidecar, one.series.identifying)
    if one.target.task is not None:
        found["TaskName"] = one.target.task
    if one.target.suffix == "fieldmap":
        found.setdefault("Units", "Hz")
    if one.target.suffix == "phasediff" and not {"EchoTime1", "EchoTime2"} <= found.keys():
        found |= _echo_times(one, out)
    return found


def _echo_times(one: Planned, out: Path) -> dict[str, float]:
    """Echo times of a phase difference: those of its magnitude images, which are converted before it."""
    found = {}
    for n in (1, 2):
        sidecar = (out / plan.path(one, suffix=f"magnitude{n}")).with_suffix(".json")
        said = read_json(sidecar, "remove it, and start again") if sidecar.is_file() else {}
        if "EchoTime" not in said:
            raise DataError(
                "its headers state one echo time of two: map the series of both magnitudes, with the same entities"
            )
        found[f"EchoTime{n}"] = said["EchoTime"]
    return found


def check_mapping(planned: Sequence[Planned], mapping: SeriesMap, map_file: Path) -> None:
    """Refuse a map that no series fits; log the rules that none does.

    Raises
    ------
    ConfigError
    """
    for number in plan.unused(planned, mapping):
        logger.warning("%s: rule %d of `series` fits no series", map_file, number)
    if not any(one.rule is not None and not one.rule.ignore for one in planned):
        raise ConfigError(
            f"{map_file} fits none of {len(planned)} series: compare it with `bhx ingest list IN`"
        )
