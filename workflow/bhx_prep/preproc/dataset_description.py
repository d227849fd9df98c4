"""What makes a folder of derivatives a BIDS dataset: ``dataset_description.json``, ``.bidsignore``, a README."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bhx_model.atomic_write import atomic_write, write_json
from bhx_model.contract import canonical_json

BIDS_VERSION: Final = "1.10.0"

#: What BIDS has no rules for: names that fMRIPrep's own .bidsignore lacks, and what BHX writes beside. The validator takes a
#: name with a second ``*`` that anything follows for none at all.
IGNORED: Final = (
    "*.html", "logs/", "log/", "figures/", "*_status.json",
    "*_xfm.*", "*_boldref.*", "*_timeseries.*", "*_desc-quality_*", "*_hemi-*", "*_space-fsLR_*",
    "*_mixing.*", "*_AROMAnoiseICs.csv", "*_fieldmap.*", "*_T2starmap.*", "*_fmapid-*", "fmap/", "desc-*_dseg.tsv",
)  # fmt: skip

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
    with _alone(out):
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


def location(raw: Path, out: Path) -> str:
    """Where a dataset is, as a URI: relative to the derivatives if both lie in the study's folder, else absolute."""
    if raw.is_absolute() or ".." in raw.parts:
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
    path = urllib.parse.unquote(url.removeprefix("file://"))
    return "://" not in path and (out / path).is_dir()


def _write_ignored(path: Path) -> None:
    """Add our names to those of the program that made the derivatives."""
    theirs = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    lines = list(dict.fromkeys([*filter(None, map(str.strip, theirs)), *IGNORED]))
    with atomic_write(path, shared=True) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """No other job reads and writes the description meanwhile, where the file system has locks."""
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
