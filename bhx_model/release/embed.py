"""Use trained weights: load an exported folder, and embed a subject's scans.

Examples
--------
The three lines; `folder` is an export, `series` (ROIs, frames) are parcel means at a repetition time of 2 s.

>>> import bhx_model
>>> model = bhx_model.from_pretrained(folder)
>>> tokens = model.embed(series, tr_s=2.0, roi_names=names)
>>> tokens.shape  # ROIs, time patches, width
(20, 6, 64)

With a T1 on the model's grid the hub tokens of both:

>>> model.embed(series, tr_s=2.0, roi_names=names, t1w=volume).shape
(16, 64)

Many subjects at once, with gradients:

>>> batch = torch.from_numpy(np.stack([series, series])).requires_grad_()
>>> tokens = model.encode_series(batch, tr_s=2.0)
>>> tokens.shape
torch.Size([2, 20, 6, 64])
>>> tokens.sum().backward()
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bhx_model.data import augment
from bhx_model.data.rois import RoiMetadata
from bhx_model.data.segments import checked
from bhx_model.data.t1w_space import T1wSpace
from bhx_model.errors import ConfigError, DataError
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.jepa import FunctionJEPA
from bhx_model.nets.mae import StructureMAE
from bhx_model.nets.normalise import centred
from bhx_model.release import load
from bhx_model.release.batch_input import batch_of, by_length, check_runs, run_lengths, thinned
from bhx_model.release.hub import find_export
from bhx_model.release.image_input import is_image, is_path, open_series, open_t1w, read_array
from bhx_model.release.run_checks import check_deviation, check_run
from bhx_model.release.series_input import check_tr, numbers_of, rows_of_rois

#: A T1 whose mean, or whose standard deviation or its inverse, is larger was not normalised; nor was one of which
#: nothing lies below 0.
T1W_LEVEL = 20.0


class BrainHarmonix(nn.Module):
    """Both encoders and the fusion, or some of them, ready to embed.

    An ordinary module: ``parameters``, ``state_dict``, ``train`` and ``eval``, ``to``. What `forward` uses has gradients;
    what only the training needs (predictor, decoders, the online encoder) has none.

    Parameters
    ----------
    function : FunctionJEPA
    rois : RoiMetadata
        Names in the order of a series' rows, and the statistics that series are scaled by.
    about : dict
        ``config.json`` of the folder.
    structure : StructureMAE, optional
    fusion : FusionModel, optional
    t1w_space : T1wSpace, optional
        The T1s that the structure encoder expects, where the export describes them.
    """

    function: FunctionJEPA
    structure: StructureMAE | None
    fusion: FusionModel | None

    def __init__(
        self,
        function: FunctionJEPA,
        rois: RoiMetadata,
        about: dict[str, Any],
        structure: StructureMAE | None = None,
        fusion: FusionModel | None = None,
        t1w_space: T1wSpace | None = None,
    ) -> None:
        super().__init__()
        self.function = function
        self.structure = structure
        self.fusion = fusion
        self.rois = rois
        self.about = about
        self.t1w_space = t1w_space
        self._make_trainable()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        stages: Sequence[str] | None = None,
        device: torch.device | str = "cpu",
        revision: str | None = None,
        cache_dir: str | Path | None = None,
    ) -> BrainHarmonix:
        """Load an exported model; see `bhx_model.from_pretrained`."""
        place = load.check_device(device)
        name, folder = folder, find_export(folder, revision=revision, cache_dir=cache_dir)
        about = load.read_about(folder, name)
        rois = load.read_rois(folder)
        models = load.load_stages(about, load.chosen_stages(about, stages, folder), folder)
        function = cast(FunctionJEPA, models["function"])
        load.check_rois(function, rois, about["stages"]["function"]["model_metadata"])
        load.check_rois_file(about, folder)
        model = cls(
            function,
            rois,
            about,
            cast(StructureMAE | None, models.get("structure")),
            cast(FusionModel | None, models.get("fusion")),
            load.read_t1w_space(about, folder),
        )
        return model.eval().to(place)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.function.parameters()).device

    @property
    def roi_names(self) -> tuple[str, ...]:
        """Names of the ROIs, in the order of a series' rows."""
        return self.rois.names

    def encode_series(self, series_BRT: Tensor, tr_s: float) -> Tensor:
        """Tokens of the function encoder for many runs of one length and repetition time, with gradients.

        Parameters
        ----------
        series_BRT : Tensor, (B, R, T)
            Parcel means before any scaling of ROIs, rows in the order of `roi_names`; NaN for ROIs without coverage and
            beyond the end of shorter runs. Frames that do not fill the last patch, and runs shorter than one patch, are
            padded; more than the model reads (``time_patches``) are cut off. Also an array, or a list of tensors.
        tr_s : float
            Repetition time, s.

        Returns
        -------
        Tensor, (B, R, N, D) float
            N time patches of about 35.28 s, of the longest run; NaN behind the last of a shorter one.

        Raises
        ------
        DataError
            If the shape, the numbers or the repetition time do not fit, as in `embed`.
        ConfigError
            If the weights were cast to another precision.
        """
        self._check_precision()
        tr_s, config = check_tr(tr_s), self.function.config
        series_BRT = batch_of(series_BRT, "the batch")
        if series_BRT.ndim != 3 or series_BRT.shape[1] != len(self.rois) or 0 in series_BRT.shape:
            msg = f"the batch has shape {tuple(series_BRT.shape)}, expected (subjects, {len(self.rois)} ROIs, frames)"
            raise DataError(msg)
        lengths = run_lengths(series_BRT)
        check_runs(series_BRT, lengths, self.rois, config)
        if config.scaling == "run":  # before it is moved: not every device has float64
            if series_BRT.dtype != torch.float32:
                series_BRT = centred(series_BRT.double() if series_BRT.is_cpu else series_BRT.float())
            check_deviation(float(centred(series_BRT.detach()).nan_to_num(nan=0).abs().max()), "the batch")
        series_BRT = series_BRT.float().to(self.device)
        fixed = config.tr == "fixed"
        frames = augment.patch_frames(config.base_tr_s if fixed else tr_s, config.window_s)
        # runs that fill as many patches go together; the filter to a fixed repetition time wants each as long as it is
        ends = lengths if fixed else [-(-n // frames) * frames for n in lengths]

        def encode(places: Tensor, end: int) -> Tensor:
            run_BRT = (series_BRT if len(places) == len(ends) else series_BRT[places])[..., :end]
            if fixed:
                run_BRT = thinned(run_BRT, tr_s, config)
            run_BRT = run_BRT[..., : config.time_patches * frames]
            padded_BRT = F.pad(run_BRT, (0, -run_BRT.shape[-1] % frames), value=torch.nan)
            return self.function.encode(padded_BRT, frames).unflatten(1, (len(self.rois), -1))

        return by_length(ends, encode)

    def encode_volume(self, volume_BXYZ: Tensor) -> Tensor:
        """Tokens of the structure encoder for many T1 volumes on the model's grid, with gradients.

        Parameters
        ----------
        volume_BXYZ : Tensor, (B, X, Y, Z)
            Intensity-normalised. Also an array, or a list of tensors.

        Returns
        -------
        Tensor, (B, S, D)

        Raises
        ------
        DataError
            If the weights have no structure encoder, or a T1 is none that `embed` takes as an array.
        """
        self._check_precision()
        structure = self._needs_t1w()
        volume_BXYZ = batch_of(volume_BXYZ, "the batch of T1s")
        if tuple(volume_BXYZ.shape[1:]) != structure.grid or not len(volume_BXYZ):
            grid = ", ".join(map(str, structure.grid))
            msg = f"the T1s have shape {tuple(volume_BXYZ.shape)}, expected (subjects, {grid}): resample"
            raise DataError(msg)
        for volume_XYZ in volume_BXYZ.detach().cpu():
            self._check_volume(volume_XYZ.float().numpy())
        return structure.encode(volume_BXYZ.to(self.device).float())

    def forward(self, series_BRT: Tensor, tr_s: float, volume_BXYZ: Tensor | None = None) -> Tensor:
        """Hub tokens (B, H, D) of pairs of series and T1; without T1s the function tokens, see `encode_series`.

        Raises
        ------
        DataError
            If the numbers of series and T1s differ, or as `encode_series` and `encode_volume`.
        """
        function_BRND = self.encode_series(series_BRT, tr_s)
        if volume_BXYZ is None:
            return function_BRND
        structure_BSD = self.encode_volume(volume_BXYZ)
        if len(structure_BSD) != len(function_BRND):
            msg = f"there are {len(function_BRND)} series and {len(structure_BSD)} T1s: give a T1 for every series"
            raise DataError(msg)

        def fuse(places: Tensor, n_patches: int) -> Tensor:
            known_BRND = function_BRND[places, :, :n_patches]
            return self.fuse(structure_BSD[places], known_BRND.flatten(1, 2), n_patches)

        n_patches = (~function_BRND[:, 0, :, 0].isnan()).sum(dim=1)
        return by_length(n_patches.tolist(), fuse)

    @torch.inference_mode()
    def embed(
        self,
        series: Any,
        tr_s: Any = None,
        roi_names: Any = None,
        t1w: Any = None,
        segments: Sequence[Sequence[int]] | None = None,
        *,
        atlas: Any = None,
        mask: Any = None,
    ) -> NDArray[np.float32]:
        """Embed one subject.

        Parameters
        ----------
        series : array-like or tensor (R, T), table (T, R), BOLD image, or path
            Parcel means, before any scaling of ROIs; rows in the order of `roi_names`, a row of NaN where a parcel has
            no coverage. Of a table (pandas, polars) the names of the columns decide, in whatever order. Units and offset
            make no difference (with ``scaling: population`` they do). More than 635 s (18 patches in the base model) are
            cut off. A path is a table (Parquet, TSV, CSV), an ``.npy``, or a BOLD volume of a BIDS data set; a volume
            should be denoised and needs `atlas`.
        tr_s : float, optional
            Repetition time in seconds; None where the file's sidecar, header or metadata state it.
        roi_names : sequence of str, optional
            R names of an array's rows, the model's in the model's order (``model.roi_names``); spelled with or without
            the prefix, or as in CBIG's older lists. Of `atlas`, where it is a bare image, in rising order of its labels.
        t1w : array-like or tensor (X, Y, Z), image, or path, optional
            T1 for the hub tokens; not for the function encoder alone. An array is intensity-normalised and on the model's
            grid; an image in MNI space is brought there, as the export describes it (`prepare_t1w`).
        segments : sequence of (int, int), optional
            Of a series from which frames were censored, the ranges that were kept, first and one behind the last, e.g.
            ``[(4, 60), (63, 200)]``; patches then end at the cuts. `segments` of a shard's JSON.
        atlas : path or image, optional
            Of a BOLD volume: a label image in its space, or a study's ``results/templates``.
        mask : path, image or array, optional
            Brain mask of a T1 image; without it the image must be skull-stripped, its background 0.

        Returns
        -------
        ndarray, float32
            With a T1 the hub tokens, (H, D). Without, the function tokens, (R, N, D) of the N time patches.

        Raises
        ------
        DataError
            If ROIs, units, lengths or the grid do not fit, with what is wrong and how to fix it.
        ConfigError
            If an argument is missing or too many.
        SiteError
            If reading a file needs a package that is not installed.
        """
        self._check_precision()
        if t1w is None and mask is not None:
            raise ConfigError("the mask is of a T1, and there is none: give t1w, or leave out mask")
        series, tr_s, roi_names = open_series(series, tr_s, roi_names, atlas, self.rois)
        rows = rows_of_rois(series, roi_names, self.rois)
        tr_s = check_tr(tr_s)
        config = self.function.config
        known = self._single_precision(rows)
        cuts = checked(segments, known.shape[-1])
        augment.check_series(known, tr_s, len(self.rois), config, cuts)
        check_run(rows, self.rois, config)
        plan = augment.plan_series(tr_s, known.shape[1], config, segments=cuts)
        cut = torch.from_numpy(augment.apply_plan(known, plan, config))[None].to(self.device)
        function = self.function.encode(cut, plan.patch_frames)
        if t1w is None:
            return function[0].unflatten(0, (len(self.rois), -1)).float().cpu().numpy()
        structure = self._needs_t1w()
        volume = self._volume(t1w, mask, structure.grid)
        tokens = structure.encode(torch.from_numpy(volume)[None].to(self.device))
        return self.fuse(tokens, function, plan.n_patches)[0].float().cpu().numpy()

    def fuse(self, structure_BSD: Tensor, function_BFD: Tensor, n_patches: int) -> Tensor:
        """Hub tokens of tokens of both encoders, rounded to bfloat16 as in the training of the fusion.

        Parameters
        ----------
        structure_BSD : Tensor, (B, S, D)
            From `encode_volume`.
        function_BFD : Tensor, (B, R * N, D)
            From `encode_series`, its ROIs and patches in one axis.
        n_patches : int
            N.

        Returns
        -------
        Tensor, (B, H, D)

        Raises
        ------
        DataError
            If the weights have no fusion.
        """
        if self.fusion is None:
            raise DataError("hub tokens need the stage fusion: load it too, or leave out the T1")
        return self.fusion.encode(
            structure_BSD.bfloat16().float(), function_BFD.bfloat16().float(), n_patches
        )

    def _needs_t1w(self) -> StructureMAE:
        if self.structure is None:
            msg = "these weights are the function encoder alone and take no T1: leave it out for the function tokens"
            raise DataError(msg)
        return self.structure

    def prepare_t1w(self, t1w: Any, mask: Any = None) -> NDArray[np.float32]:
        """Bring a T1 image in MNI space to the model's grid, as the T1s of the training were.

        Parameters
        ----------
        t1w : path or image
            Preprocessed T1w in MNI space, any resolution.
        mask : path, image or array, optional
            Its brain mask; without it the image must be skull-stripped, its background 0.

        Returns
        -------
        ndarray, (X, Y, Z) float32

        Raises
        ------
        DataError
            If it is in another space, flipped or mirrored, or the export does not describe its T1s.
        """
        if self.t1w_space is None:
            msg = "this export does not describe its T1s: give an array on the model's grid, or export the weights again"
            raise DataError(msg)
        data, affine, inside, name = open_t1w(t1w, mask)
        return self.t1w_space.conform(data, affine, inside, name)

    def _volume(self, t1w: Any, mask: Any, grid: tuple[int, int, int]) -> NDArray[np.float32]:
        if (is_path(t1w) and Path(t1w).suffix != ".npy") or is_image(t1w):
            return self.prepare_t1w(t1w, mask)
        if mask is not None:
            msg = "an array is masked already: leave out mask, or give the T1 as an image or a path"
            raise ConfigError(msg)
        if is_path(t1w):
            t1w = read_array(Path(t1w))
        volume = np.array(numbers_of(t1w, "the T1"), np.float32, order="C")  # torch takes no reversed axes
        if volume.shape != grid:
            msg = f"the T1 has {volume.shape} voxels, the model's grid is {grid}: resample and crop it"
            raise DataError(msg)
        self._check_volume(volume)
        return volume

    def _check_volume(self, volume: NDArray[np.float32]) -> None:
        if not np.isfinite(volume).all():
            msg = "the T1 holds NaN or infinite values: set the background to a number"
            raise DataError(msg)
        centre, spread, low = float(volume.mean()), float(volume.std()), float(volume.min())
        if abs(centre) > T1W_LEVEL or not 1 / T1W_LEVEL < spread < T1W_LEVEL or low >= 0:
            msg = (
                f"the T1 has mean {centre:.3g}, standard deviation {spread:.3g} and minimum {low:.3g}, it is not "
                "intensity-normalised: bring the brain to mean 0 and standard deviation 1"
            )
            raise DataError(msg)
        if self.t1w_space is not None:
            self.t1w_space.check(volume)

    def _make_trainable(self) -> None:
        """Let gradients reach what `forward` uses, and nothing else."""
        self.requires_grad_(False)
        self.function.target.requires_grad_(True)
        if self.structure is not None:
            self.structure.encoder.requires_grad_(True)
        if self.fusion is not None:
            for name, parameter in self.fusion.named_parameters():
                parameter.requires_grad_(not name.startswith(("decoder", "mask_token")))

    def _check_precision(self) -> None:
        weights = next(self.function.target.parameters())
        if weights.is_meta:
            raise ConfigError(
                "the weights are on the device meta, which holds no numbers: load them on another"
            )
        if weights.dtype != torch.float32:
            msg = (
                f"the weights were cast to {weights.dtype}, or torch's default dtype was that when they were loaded: "
                "keep float32 and use torch.autocast"
            )
            raise ConfigError(msg)

    def _single_precision(self, series_RT: NDArray[np.float64]) -> NDArray[np.float32]:
        """Round series to float32; with scaling ``run`` about their means, so that an offset costs no digits."""
        if self.function.config.scaling == "run" and series_RT.size:
            known = np.isfinite(series_RT)
            n = np.maximum(known.sum(axis=1, keepdims=True), 1)
            series_RT = series_RT - np.where(known, series_RT, 0).sum(axis=1, keepdims=True) / n
            check_deviation(float(np.abs(series_RT[known]).max(initial=0)), "the series")
        return series_RT.astype(np.float32)


def from_pretrained(
    folder: str | Path,
    *,
    stages: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> BrainHarmonix:
    """Load an exported model.

    Parameters
    ----------
    folder : path or str
        Written by ``python -m bhx_model.release.export``; or downloaded once: ``"org/name"``, a repository of the Hugging
        Face Hub (needs ``bhx[hub]``), or a URL such as ``"https://.."`` or ``"s3://.."`` (needs ``bhx[remote]``).
    stages : sequence of str, optional
        Some of ``"structure"``, ``"function"``, ``"fusion"``; all that the export holds if None. ``["function"]`` takes
        series alone, and a third of the memory.
    device : torch.device or str
        Where to put the weights, e.g. ``"cuda"``.
    revision : str, optional
        Branch, tag or commit of a repository.
    cache_dir : path, optional
        Where downloads are kept; if None the Hub's own place, ``$HF_HOME/hub``, and ``$BHX_CACHE`` for a URL.

    Returns
    -------
    BrainHarmonix
        In ``eval`` mode.

    Raises
    ------
    DataError
        If something is missing in the folder or does not fit.
    ConfigError
        If `stages` are none of the export's.
    SiteError
        If there is no such device, or the weights cannot be downloaded.
    """
    return BrainHarmonix.from_pretrained(
        folder, stages=stages, device=device, revision=revision, cache_dir=cache_dir
    )
