"""One example scan of each cohort: T1w, BOLD reference, brain masks, template and parcels on one grid.

A person can be recognised by the shape of a brain: scans of measured cohorts are shown only where the configuration says so
(`report_scans`), never with a face, and never with a label.
"""

from __future__ import annotations

import base64
import colorsys
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np
from PIL import Image
from scipy import ndimage

from bhx_model.errors import DataError, SiteError
from bhx_prep.config.config import Config
from bhx_prep.features.scans import scans_of
from bhx_prep.ingest.index import FILE_COLUMNS
from bhx_prep.io import archives
from bhx_prep.io.images import read_image
from bhx_prep.report import collect, figures, viewer
from bhx_prep.report.pictures import Picture
from bhx_prep.review import drawings, scan_files
from bhx_prep.review.drawings import NEAR_MM, NEAR_TEMPLATE_MM, Brain, Template
from bhx_prep.review.panels import Volume

logger = logging.getLogger(__name__)

#: Scans of a page, at most, and the bytes of their volumes in it.
MOST_SCANS: Final = 6
LARGEST: Final = 4_000_000
#: Edge of a voxel of the viewer, and room around the template's brain (mm).
VOXEL_MM: Final = 2.0
ROOM_MM: Final = 8.0
#: Runs of a cohort that are tried, those of median motion first.
TRIED: Final = 3


@dataclass(frozen=True)
class Layer:
    """A volume on the grid: `kind` is ``image``, ``mask`` or ``parcels``."""

    name: str
    kind: str
    values: np.ndarray


@dataclass(frozen=True)
class ExampleScan:
    """What is shown of a scan of a cohort."""

    cohort: str
    layers: list[Layer]
    pictures: list[Picture]


@dataclass
class Examples:
    """All example scans of a page.

    Attributes
    ----------
    scans : list of ExampleScan
    kept_back : list of str
        Measured cohorts with scans that are not shown, as the configuration has it.
    affine : ndarray, shape (4, 4)
        Voxel to mm of all volumes.
    shared : list of Layer
        What is the same for every scan.
    parcels : list of str
        Names of the parcels.
    """

    scans: list[ExampleScan] = field(default_factory=list)
    kept_back: list[str] = field(default_factory=list)
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    shared: list[Layer] = field(default_factory=list)
    parcels: list[str] = field(default_factory=list)

    def data(self) -> dict[str, Any]:
        """Volumes for the viewer, as packed NIfTI."""
        if not self.scans:
            return {"scans": [], "shared": [], "parcels": [], "colours": []}

        def volumes(layers: Sequence[Layer]) -> list[dict[str, str]]:
            return [
                {"name": of.name, "kind": of.kind, "nifti": viewer.packed(_nifti(of, self.affine))}
                for of in layers
            ]

        return {
            "scans": [{"name": scan.cohort, "volumes": volumes(scan.layers)} for scan in self.scans],
            "shared": volumes(self.shared),
            "parcels": self.parcels,
            "colours": _colours(self.parcels).tolist(),
        }


def find(config: Config, results: Path, cohorts: Sequence[collect.CohortSummary]) -> Examples:
    """A scan of each cohort that has derivatives in the template's space; unreadable ones are skipped and logged."""
    examples = Examples()
    wanted = []
    for cohort in cohorts:
        if config.report_scans == "none" or not any(row["status"] == "ok" for row in cohort.quality):
            continue
        if config.report_scans == "synthetic" and not cohort.synthetic:
            examples.kept_back.append(cohort.name)
        else:
            wanted.append(cohort)
    if not wanted:
        return examples
    try:
        grid = _Grid(scan_files.template(results / "templates"))
        parcels, names = _parcels(results / "templates", grid)
    except (SiteError, DataError) as error:
        logger.info("no example scans: %s", error)
        return examples
    examples.affine, examples.shared, examples.parcels = grid.affine, grid.layers(), names
    if parcels is not None:
        examples.shared.append(parcels)
    size = 0
    for cohort in wanted[:MOST_SCANS]:
        logger.info("example scan of %s", cohort.name)
        scan = _example(config, results, cohort, grid)
        if scan is None:
            continue
        size += sum(len(viewer.packed(layer.values)) for layer in scan.layers)
        if size > LARGEST:
            break
        if parcels is not None:
            scan.pictures.append(
                _parcel_picture(cohort.name, scan.layers[0], parcels, names, config.atlas.label)
            )
        examples.scans.append(scan)
    return examples


class _Grid:
    """A grid around the template's brain for all volumes."""

    def __init__(self, template: Template):
        self.template = template
        mask = template.mask
        inside = np.argwhere(np.asarray(mask.values) > 0) @ mask.affine[:3, :3].T + mask.affine[:3, 3]
        low = np.floor((inside.min(0) - ROOM_MM) / VOXEL_MM) * VOXEL_MM
        self.shape = tuple(np.ceil((inside.max(0) + ROOM_MM - low) / VOXEL_MM).astype(int) + 1)
        self.affine = np.diag([VOXEL_MM] * 3 + [1.0])
        self.affine[:3, 3] = low
        self._away = self.sample(template.away, beyond=1e3)

    def sample(self, volume: Volume, order: int = 1, beyond: float = 0.0) -> np.ndarray:
        """Values of a volume on the grid; `beyond` outside of it."""
        into = np.linalg.inv(volume.affine) @ self.affine
        return ndimage.affine_transform(
            np.asarray(volume.values, np.float32), into, output_shape=self.shape, order=order,
            mode="constant", cval=beyond, prefilter=False,
        )  # fmt: skip

    def grey(self, brain: Brain) -> np.ndarray:
        """Intensities, uint8; nothing far from the brain, so that there is no face."""
        low, high = brain.window
        values = np.nan_to_num(self.sample(brain.image), nan=0.0, posinf=0.0, neginf=0.0)
        near = self._away <= (NEAR_MM if brain.away is None else NEAR_TEMPLATE_MM)
        if brain.away is not None:
            near &= self.sample(brain.away, beyond=1e3) <= NEAR_MM
        return np.where(near, np.clip((values - low) / (high - low) * 255, 0, 255), 0).astype(np.uint8)

    def mask(self, mask: Volume) -> np.ndarray:
        """A mask, uint8."""
        return (self.sample(mask) >= 0.5).astype(np.uint8)

    def layers(self) -> list[Layer]:
        """The template and its brain."""
        brain = Brain(self.template.head, self.template.mask)
        return [
            Layer("template", "image", self.grey(brain)),
            Layer("brain of the template", "mask", self.mask(self.template.mask)),
        ]


def _parcels(templates: Path, grid: _Grid) -> tuple[Layer | None, list[str]]:
    """The atlas on the grid, and its names; none where it is not known in a volume."""
    file = templates / "atlas_volume.nii.gz"
    about = collect.json_if_whole(templates / "atlas.json") or {}
    if not file.exists() or not about.get("names"):
        return None, []
    values = grid.sample(Volume(*read_image(file, np.float32)), order=0)
    return Layer("parcels", "parcels", np.rint(values).astype(np.uint16)), [str(n) for n in about["names"]]


def _colours(names: Sequence[str]) -> np.ndarray:
    """A colour per parcel, 0..255, of the hue of its network: neighbours differ in brightness."""
    hues = {family: i / (len(figures.FAMILIES) + 1) for i, family in enumerate([*figures.FAMILIES, "other"])}
    colours = [
        colorsys.hsv_to_rgb(hues[family], 0.55 + 0.15 * (i % 3), 0.65 + 0.1 * (i % 4))
        for i, family in enumerate(figures.families(names))
    ]
    return np.round(255 * np.array(colours)).astype(int).reshape(-1, 3)


def _example(config: Config, results: Path, cohort: collect.CohortSummary, grid: _Grid) -> ExampleScan | None:
    """A run of median motion and the T1w of the same subject, as far as they are in the template's space."""
    for run in collect.typical_runs(cohort.quality, TRIED):
        try:
            with ExitStack() as stack:
                scans = [stack.enter_context(archives.unpacked(row, FILE_COLUMNS))
                         for row in _scans(config, results, cohort, run)]  # fmt: skip
                layers, pictures = [], []
                for layer, picture in _shown(cohort.name, scans, grid):
                    layers += layer
                    pictures += picture
                if layers:
                    return ExampleScan(cohort.name, layers, pictures)
        except (DataError, OSError) as error:
            logger.warning("an example scan of %s is not shown: %s", cohort.name, error)
    return None


def _scans(
    config: Config, results: Path, cohort: collect.CohortSummary, run: collect.Row
) -> list[collect.Row]:
    """The T1w image and the run, of those that there are, which are images and not raw."""
    section = config.cohorts[cohort.name]
    rows = scans_of(
        results / cohort.name / "index.parquet",
        cohort.name,
        [run["subject"]],
        derivatives=results / cohort.name / "preproc" if section.input == "bids" else None,
        space=section.space,
        t1w_mm=config.features.t1w_resolution_mm,
    )
    usable = [
        row for row in rows if row["status"] == "ok" and row["path"] and row["kind"] not in ("raw", "table")
    ]
    bold = [row for row in usable if row["modality"] == "bold" and row["key"] == run["key"]]
    own = bold[0]["anat"] if bold else None
    t1w = sorted((row for row in usable if row["modality"] == "t1w"), key=lambda row: row["key"] != own)
    return [*t1w[:1], *bold]


def _shown(
    cohort: str, scans: Sequence[collect.Row], grid: _Grid
) -> Iterator[tuple[list[Layer], list[Picture]]]:
    """Layers and still pictures of each scan."""
    anat: tuple[Brain, Volume | None] | None = None
    for scan in scans:
        path, mask = Path(scan["path"]), Path(scan["mask"]) if scan["mask"] else None
        if scan["modality"] == "t1w":
            if not scan_files.is_standard(path):
                continue
            brain, name = scan_files.t1w(path, mask), "T1w"
            anat = brain, scan_files.white_matter(path)
            title = f"{cohort}, T1w: brain and white matter of the template"
            svg = drawings.normalisation(brain, grid.template, f"{cohort}, T1w")
        else:
            brain, name = scan_files.bold_reference(path, mask), "BOLD reference"
            if brain is None:
                continue
            if anat is None:
                title = f"{cohort}, BOLD reference: brain and white matter of the template"
                svg = drawings.normalisation(brain, grid.template, f"{cohort}, BOLD")
            else:
                title = f"{cohort}, BOLD reference: brain and white matter of the same subject's T1w"
                svg = drawings.coregistration(brain, *anat, grid.template, f"{cohort}, BOLD")
        layers = [Layer(name, "image", grid.grey(brain))]
        if brain.mask is not None:
            layers.append(Layer(f"brain mask of the {name}", "mask", grid.mask(brain.mask)))
        yield layers, [_still(title, svg.encode(), "svg+xml")]


def _still(caption: str, content: bytes, kind: str) -> Picture:
    address = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(f"{caption}.", address=address, alt=f"{caption}, in planes through the brain.")


def _parcel_picture(cohort: str, image: Layer, parcels: Layer, names: Sequence[str], atlas: str) -> Picture:
    """Parcels on an image, in three planes through the middle."""
    palette = np.vstack([[0, 0, 0], _colours(names)])
    grey = np.repeat(image.values[..., None], 3, axis=3).astype(np.float32)
    inside = parcels.values > 0
    grey[inside] = 0.45 * grey[inside] + 0.55 * palette[parcels.values[inside]]
    planes = [np.take(grey, grey.shape[axis] // 2 + (5 if axis == 0 else 0), axis=axis) for axis in range(3)]
    planes = [plane.swapaxes(0, 1)[::-1] for plane in planes]
    height = max(plane.shape[0] for plane in planes)
    row = np.hstack([np.pad(p, ((0, height - p.shape[0]), (0, 4), (0, 0))) for p in planes])
    buffer = io.BytesIO()
    shown = Image.fromarray(row.astype(np.uint8))
    shown.resize((shown.width * 3, shown.height * 3), Image.Resampling.BILINEAR).save(
        buffer, "JPEG", quality=80
    )
    return _still(f"{cohort}: parcels of {atlas} on the {image.name}", buffer.getvalue(), "jpeg")


def _nifti(layer: Layer, affine: np.ndarray) -> bytes:
    image = nib.Nifti1Image(layer.values, affine)
    if layer.kind == "parcels":
        image.header.set_intent("label")  # by which the viewer knows that values are names
    return image.to_bytes()
