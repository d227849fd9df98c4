"""Per-ROI metadata of an atlas, which become buffers of the model. Needs no torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bhx_model.atomic_write import atomic_write
from bhx_model.contract import ROI_ARRAYS, roi_sha256
from bhx_model.data import npz
from bhx_model.errors import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class RoiMetadata:
    """Contents of ``rois.npz`` (see ``contract.ROI_ARRAYS``), checked. Rows in the order of the series."""

    atlas: str
    names: tuple[str, ...]
    hemisphere: NDArray[np.int8]
    """(R,) 0 left, 1 right, -1 not known or of neither."""
    harmonics: NDArray[np.float32]
    """(R, M), constant mode first; M is 0 for an atlas without harmonics."""
    eigenvalues: NDArray[np.float64]
    """(2, M) mm^-2, left and right."""
    gradients: NDArray[np.float32]
    """(R, G)."""
    median: NDArray[np.float32]
    """(R,) centre of the normaliser, units of the series."""
    iqr: NDArray[np.float32]
    """(R,) scale of the normaliser, units of the series, > 0."""

    def __post_init__(self) -> None:
        """Refuse arrays that do not describe the same ROIs or cannot be used."""
        n = len(self.names)
        if not n or len(set(self.names)) != n:
            msg = "rois: names must be distinct and at least one: rebuild rois.npz"
            raise DataError(msg)
        modes, gradients = (sum(array.shape[-1:]) for array in (self.harmonics, self.gradients))
        shapes = {
            "hemisphere": (n,), "harmonics": (n, modes), "eigenvalues": (2, modes),
            "gradients": (n, gradients), "median": (n,), "iqr": (n,),
        }  # fmt: skip
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                msg = f"rois: {name} is {array.shape}, {n} ROI names need {shape}: rebuild rois.npz"
                raise DataError(msg)
            if not np.isfinite(array).all():
                msg = f"rois: {name} holds values that are not finite: rebuild rois.npz"
                raise DataError(msg)
        if not np.isin(self.hemisphere, (-1, 0, 1)).all():
            msg = "rois: hemisphere must be 0 (left), 1 (right) or -1 (not known)"
            raise DataError(msg)
        if (self.iqr <= 0).any():
            bad = self.names[int(np.argmax(self.iqr <= 0))]
            msg = f"rois: the scale of {bad} is not positive: fit the normaliser on data in which it varies"
            raise DataError(msg)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_harmonics(self) -> int:
        """Harmonics per hemisphere, M; 0 for an atlas without."""
        return self.harmonics.shape[1]

    @property
    def roi_sha256(self) -> str:
        """Hash of the atlas name and the ROI names in order."""
        return roi_sha256(self.atlas, self.names)

    @classmethod
    def load(cls, path: Path | str) -> RoiMetadata:
        """Read ``rois.npz``.

        Raises
        ------
        DataError
            If it is no such file, or an array is missing, misshapen or unusable.
        OSError
            If the file cannot be read.
        """
        arrays = npz.read(path, "rebuild it, or name the rois.npz of the experiment")
        missing = [name for name in ROI_ARRAYS if name not in arrays]
        if missing:
            msg = f"{path}: {', '.join(missing)} missing, this is no rois.npz of this version: rebuild it"
            raise DataError(msg)
        types = {"hemisphere": np.int8, "eigenvalues": np.float64}
        types |= dict.fromkeys(("harmonics", "gradients", "median", "iqr"), np.float32)
        try:
            numbers = {name: arrays[name].astype(dtype) for name, dtype in types.items()}
        except ValueError as error:
            msg = f"{path}: expected numbers, found other things ({error}): rebuild it"
            raise DataError(msg) from error
        names = tuple(str(name) for name in np.atleast_1d(arrays["names"]))
        return cls(atlas=str(arrays["atlas"]), names=names, **numbers)

    def save(self, path: Path) -> None:
        """Write ``rois.npz``."""
        with atomic_write(path) as part:
            np.savez(
                part, atlas=np.array(self.atlas), names=np.array(self.names),
                **{name: getattr(self, name) for name in ROI_ARRAYS if name not in ("atlas", "names")},
            )  # fmt: skip

    def check_order(self, names: tuple[str, ...] | list[str]) -> None:
        """Refuse ROI `names` that are not these, in this order.

        Raises
        ------
        DataError
            With the first position that differs.
        """
        if tuple(names) == self.names:
            return
        if len(names) != len(self.names):
            msg = f"{len(names)} ROIs, but the model knows {len(self.names)} of atlas {self.atlas}: use that atlas"
            raise DataError(msg)
        at = next(i for i, (ours, theirs) in enumerate(zip(self.names, names, strict=True)) if ours != theirs)
        msg = f"row {at} is {names[at]!r}, the model's is {self.names[at]!r}: bring the rows into the order of {self.atlas}"
        raise DataError(msg)

    def check_harmonics(self, n_harmonics: int) -> None:
        """Refuse a model that was trained with another number of harmonics, or with none where these have some.

        Parameters
        ----------
        n_harmonics : int
            That the model was trained with.

        Raises
        ------
        DataError
            If these have another number.
        """
        if n_harmonics != self.n_harmonics:
            theirs, ours = (
                f"{n} harmonics" if n else "no harmonics" for n in (n_harmonics, self.n_harmonics)
            )
            msg = (
                f"the model was trained on {theirs} of {self.atlas}, rois.npz holds {ours}: set features.harmonics as it"
                " was in the training, or use the rois.npz of the same experiment"
            )
            raise DataError(msg)
