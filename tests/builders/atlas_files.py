"""Label files of an atlas: as TemplateFlow lays them out, and with subcortex as Tian publishes them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import cifti2, gifti

from bhx_prep.atlas.sources import packages
from bhx_prep.config.atlas import AtlasSection
from bhx_prep.io.meshes import GRAYORDINATES_AFFINE, GRAYORDINATES_SHAPE

SPACE = "MNI152NLin2009cAsym"
VOLUME = "tpl-MNI152NLin2009cAsym/tpl-MNI152NLin2009cAsym_res-01_atlas-Schaefer2018_desc-100Parcels7Networks_dseg.nii.gz"
SURFACE = "tpl-fsaverage/tpl-fsaverage_hemi-{}_den-164k_atlas-Schaefer2018_seg-7n_scale-100_dseg.label.gii"


def fill_templateflow(home: Path) -> None:
    """Put the files of Schaefer 100 in 7-network order into a TemplateFlow folder, made of those of the packages."""
    (left, right), _ = packages.read_annot(100, 7)
    for hemi, labels, first in (("L", left, 1), ("R", right, 51)):
        local = np.where(labels > 0, labels - first + 1, 0).astype(np.int32)
        array = gifti.GiftiDataArray(local, intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32")
        nib.save(nib.GiftiImage(darrays=[array]), home / SURFACE.format(hemi))
    seven = packages.from_packages(AtlasSection(parcels=100, networks=7))
    labels, affine = seven.volume()
    nib.save(nib.Nifti1Image(labels, affine), home / VOLUME)
    # in another space the parcels lie elsewhere
    nib.save(
        nib.Nifti1Image(np.roll(labels, 1, axis=0), affine), home / VOLUME.replace(SPACE, "MNI152NLin6Asym")
    )


def with_subcortex(folder: Path) -> tuple[Path, Path, Path]:
    """Schaefer 100 behind 16 regions of one voxel each: volume, CIFTI labels and label list as Tian's lab has them."""
    atlas = packages.from_packages(AtlasSection(parcels=100, networks=7))
    regions = [f"HIP-part{i}-{side}h" for side in "rl" for i in range(8)]
    names = [*regions, *atlas.names]
    volume, affine = atlas.volume()
    volume = np.where(volume > 0, volume + 16, 0).astype(np.float32)
    volume[np.arange(16), 0, 0] = np.arange(1, 17)
    image = folder / "Schaefer_7Networks_order_Tian_3T_MNI152NLin2009cAsym_1mm.nii.gz"
    nib.save(nib.Nifti1Image(volume, affine), image)
    inside = np.zeros(GRAYORDINATES_SHAPE, bool)
    inside[30:46, 50, 40] = True
    models = cifti2.BrainModelAxis.from_mask(inside, "brain_stem", GRAYORDINATES_AFFINE)
    labels = [np.arange(1, 17)]
    for side, values in zip(("cortex_left", "cortex_right"), atlas.surface("fsLR"), strict=True):
        models += cifti2.BrainModelAxis.from_mask(values > 0, side)
        labels.append(values[values > 0] + 16)
    table = {0: ("???", (1, 1, 1, 0))} | {i: (name, (0, 0, 0, 1)) for i, name in enumerate(names, 1)}
    header = (cifti2.LabelAxis(["atlas"], [table]), models)
    cifti = folder / "atlas.dlabel.nii"
    nib.save(nib.Cifti2Image(np.concatenate(labels)[None].astype(np.float32), header), cifti)
    listed = folder / "label.txt"
    listed.write_text("".join(f"{name}\n{i} 1 2 3 255\n" for i, name in enumerate(names, 1)))
    return image, cifti, listed


def write_label_file(path: Path, labels: tuple[np.ndarray, np.ndarray], names: list[str]) -> None:
    """A CIFTI label file of both cortices."""
    axes = [
        cifti2.BrainModelAxis.from_surface(np.arange(side.size), side.size, name)
        for side, name in zip(labels, ("CortexLeft", "CortexRight"), strict=True)
    ]
    table = {0: ("???", (0, 0, 0, 0))} | {i + 1: (name, (0.5, 0.5, 0.5, 1)) for i, name in enumerate(names)}
    header = cifti2.Cifti2Header.from_axes((cifti2.LabelAxis(["atlas"], [table]), axes[0] + axes[1]))
    nib.Cifti2Image(np.concatenate(labels)[None].astype(np.float32), header).to_filename(path)
