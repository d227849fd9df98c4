"""Write ``dataset_description.json``, ``.bidsignore`` and a README, which make a folder of derivatives a BIDS dataset."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.contract import canonical_json
from bhx_model.errors import ConfigError
from bhx_prep.io.folder_lock import alone

BIDS_VERSION: Final = "1.10.0"

#: What BIDS has no rules for: names that fMRIPrep's own .bidsignore lacks, and what BHX writes beside. The validator takes a
#: name with a second ``*`` that anything follows for none at all.
IGNORED: Final = (
    "*.html", "logs/", "log/", "figures/", "*_status.json",
    "*_xfm.*", "*_boldref.*", "*_timeseries.*", "*_desc-quality_*", "*_hemi-*", "*_space-fsLR_*",
    "*_mixing.*", "*_AROMAnoiseICs.csv", "*_fieldmap.*", "*_T2starmap.*", "*_fmapid-*", "fmap/", "desc-*_dseg.tsv",
)  # fmt: skip

#: Names by which `GeneratedBy` of derivatives says that BHX wrote them, and of the program that it may have started.
OURS: Final = frozenset({"bhx-embedded", "bhx"})
STARTED: Final = "fMRIPrep"
#: Logs of our jobs, which are begun before anything else is written.
_LOGS: Final = ("logs/sub-*_embedded.log", "logs/sub-*_fmriprep.log")

README: Final = """Derivatives of {name}

{text}

What each image was made of stands in `Sources` of the JSON beside each image; `bids:raw:` is the dataset that
dataset_description.json names in `DatasetLinks`, `bids::` this folder. ConfigurationHash is equal where the settings that
alter results are. How the preprocessing of a subject ended: sub-*_status.json.
"""


def configuration_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 of the settings that alter results, hexadecimal."""
    return hashlib.sha256(canonical_json(dict(settings))).hexdigest()


def stated(raw: Path) -> dict[str, Any]:
    """``dataset_description.json`` of a dataset; empty where it has none that can be read."""
    try:
        found = json.loads((raw / "dataset_description.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def passed_on(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of the fields that are of the type that BIDS has for them: ``Synthetic``, and texts by their names."""
    kinds = {"Synthetic": bool, **dict.fromkeys(names, str)}
    return {name: fields[name] for name, kind in kinds.items() if isinstance(fields.get(name), kind)}


def write_dataset(
    out: Path,
    raw: Path,
    *,
    name: str,
    text: str,
    generated_by: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    own: Mapping[str, Any] | None = None,
) -> None:
    """Write ``dataset_description.json``, ``.bidsignore`` and a README; every subject's job writes the same bytes.

    Parameters
    ----------
    out : Path
        Folder of the derivatives.
    raw : Path
        Dataset they were made of, as it is given: relative where it lies in the study's folder. What it says of licence
        and of synthetic data is passed on.
    name, text : str
        What made the derivatives, and a few words about it.
    generated_by : sequence of mappings
        ``GeneratedBy``.
    settings : mapping
        Settings that alter results, for ``ConfigurationHash``.
    own : mapping, optional
        Fields of the program that made the derivatives; ours replace them.
    """
    about = stated(raw)
    kept = passed_on(about, "License")
    synthetic = " (synthetic)" if kept.get("Synthetic") else ""
    with alone(out):
        sources = _sources(out, raw, about)
        links = {**(own or {}).get("DatasetLinks", {}), "raw": sources[-1]["URL"]}
        if len(sources) > 1:  # of many sites: what `raw` is depends on the subject
            del links["raw"]
        description = {
            **(own or {}),
            "Name": f"{name}{synthetic}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [dict(one) for one in generated_by],
            "SourceDatasets": sorted(sources, key=lambda source: source["URL"]),
            "DatasetLinks": links,
            "ConfigurationHash": configuration_hash(settings),
            **kept,
        }
        write_json(out / "dataset_description.json", description, shared=True)
        _write_ignored(out / ".bidsignore")
        if not any(out.glob("README*")):
            with atomic_write(out / "README.md", shared=True) as part:
                part.write_text(
                    README.format(name=about.get("Name") or raw.name, text=text), encoding="utf-8"
                )


def made_by(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Programs of ``GeneratedBy`` that have a name, whatever else a description may hold."""
    entries = about.get("GeneratedBy")
    listed = entries if isinstance(entries, list) else []
    return [dict(one) for one in listed if isinstance(one, dict) and isinstance(one.get("Name"), str)]


def check_place(out: Path, raw: Path) -> None:
    """Refuse a folder that is not one of derivatives of ours, before anything in it is written or replaced.

    Parameters
    ----------
    out : Path
        Where derivatives are to go.
    raw : Path
        Raw dataset, which is only read.

    Raises
    ------
    ConfigError
        If it is the raw dataset, holds a dataset of another program, or folders of subjects that no job of ours made.
    """
    if out.resolve() == raw.resolve():
        raise ConfigError(
            f"{out} is the raw dataset, which is only read: name another folder for the derivatives"
        )
    about = stated(out)
    programs = {one["Name"] for one in made_by(about)}
    if programs & OURS:
        return
    # a job that was killed may have left a subject without our description, but not without its log
    subjects = sorted(path.name for path in out.glob("sub-*") if path.is_dir())
    if subjects and not any(file for pattern in _LOGS for file in out.glob(pattern)):
        msg = f"{out} holds {_short(subjects[0])}, which BHX did not make: name another folder for the derivatives"
        raise ConfigError(msg)
    if about and STARTED not in programs:
        msg = f"{out} holds the dataset {_short(about.get('Name'))}, which BHX did not make: name another folder"
        raise ConfigError(msg)


def other_source(out: Path, raw: Path) -> str | None:
    """Dataset that derivatives are of, where it is another one than `raw` and still there; datasets move.

    Parameters
    ----------
    out : Path
        Folder of the derivatives.
    raw : Path
        Dataset that they should be of, or a file or folder in it.
    """
    sources = stated(out).get("SourceDatasets")
    found: list[str] = []
    for source in sources if isinstance(sources, list) else ():
        url = source.get("URL") if isinstance(source, dict) else None
        if isinstance(url, str) and _is_there(url, out):
            path = _path_of(url, out)
            if raw.resolve().is_relative_to(path) or path.is_relative_to(raw.resolve()):
                return None
            found.append(str(path))
    return found[0] if found else None


def location(raw: Path, out: Path) -> str:
    """Where a dataset is, as a URI: relative to the derivatives if both lie in the study's folder, else absolute."""
    if raw.is_absolute() or ".." in raw.parts or not out.absolute().is_relative_to(Path.cwd()):
        return raw.absolute().as_uri()
    return urllib.parse.quote(os.path.relpath(raw.absolute(), out.absolute()))


def _sources(out: Path, raw: Path, about: Mapping[str, Any]) -> list[dict[str, str]]:
    """``SourceDatasets``: those of earlier jobs that are still there, of a cohort of many sites, and last `raw`."""
    mine = {"URL": location(raw, out)}
    mine |= {
        name: about[f"Dataset{name}"] for name in ("DOI",) if isinstance(about.get(f"Dataset{name}"), str)
    }
    earlier = stated(out).get("SourceDatasets")
    found = []
    for source in earlier if isinstance(earlier, list) else ():
        url = source.get("URL") if isinstance(source, dict) else None
        if isinstance(url, str) and url != mine["URL"] and _is_there(url, out):
            found.append(source)
    return [*found, mine]


def _is_there(url: str, out: Path) -> bool:
    return "://" not in url.removeprefix("file://") and _path_of(url, out).is_dir()


def _path_of(url: str, out: Path) -> Path:
    return (out / urllib.parse.unquote(url.removeprefix("file://"))).resolve()


def _short(name: Any) -> str:
    """A name as part of a sentence."""
    words = " ".join(str(name or "of no name").split())
    return words if len(words) <= 60 else f"{words[:57]}..."


def _write_ignored(path: Path) -> None:
    """Add our names to those of the program that made the derivatives."""
    theirs = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    lines = list(dict.fromkeys([*filter(None, map(str.strip, theirs)), *IGNORED]))
    with atomic_write(path, shared=True) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
