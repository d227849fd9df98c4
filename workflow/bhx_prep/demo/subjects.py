"""What the cohorts with BOLD images share: acquisition parameters of a subject, and the signals in the scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bhx_prep.demo import bold, series, sources


@dataclass(frozen=True)
class Subject:
    """A subject and the one run that is simulated.

    Attributes
    ----------
    label : str
        BIDS label, without ``sub-``.
    tr_s : float
        Repetition time (s).
    n_frames : int
        Frames of the run.
    mean_fd_mm : float
        Mean framewise displacement to which real head motion is scaled (mm).
    motion_from : int
        First frame of the stretch of real motion.
    session : str, optional
        BIDS label, without ``ses-``.
    """

    label: str
    tr_s: float
    n_frames: int
    mean_fd_mm: float
    motion_from: int
    session: str | None = None

    @property
    def stem(self) -> str:
        """Beginning of every file name."""
        return f"sub-{self.label}" + (f"_ses-{self.session}" if self.session else "")

    def folder(self, root: Path) -> Path:
        """Folder of the subject's images."""
        below = root / f"sub-{self.label}"
        return below / f"ses-{self.session}" if self.session else below


@dataclass(frozen=True)
class Signals:
    """What changes from frame to frame.

    Attributes
    ----------
    parcels : numpy.ndarray of shape (R, T)
        Unit-variance parcel series.
    changes : numpy.ndarray of shape (R + 4, T)
        Relative change of every source; see `bold.percent_changes`.
    motion : numpy.ndarray of shape (T, 6)
        Translations (mm) and rotations (rad) against the first frame.
    physiology : bold.Physiology
    """

    parcels: np.ndarray
    changes: np.ndarray
    motion: np.ndarray
    physiology: bold.Physiology


def draw_signals(rng: np.random.Generator, subject: Subject) -> Signals:
    """Draw a run's signals: a connectivity of the subject's own, real spectrum and real head motion."""
    spectrum, physiology = sources.real_spectrum(), bold.Physiology()
    own = series.individual(rng, sources.connectivity())
    parcels = series.draw(rng, own, subject.n_frames, subject.tr_s, spectrum)
    return Signals(
        parcels=parcels,
        changes=bold.percent_changes(rng, parcels, subject.tr_s, spectrum, physiology),
        motion=bold.take_motion(
            sources.real_motion(), subject.motion_from, subject.n_frames, subject.mean_fd_mm
        ),
        physiology=physiology,
    )
