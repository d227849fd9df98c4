"""The cohorts `pretraining` and `patients`: parcel series as tables and T1 volumes, the input `timeseries`.

Series have HCP's mean connectivity and the LEMON scan's spectrum; each subject varies around the former and in how
much each network fluctuates. `patients` has two planted effects of stated size, one of a group and one of a continuous
score, each in connectivity, in the size of a network's fluctuations and in T1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bhx_model import __version__
from bhx_model.atomic_write import write_json
from bhx_prep.demo import folder, head, series, sources
from bhx_prep.demo.chance import generator
from bhx_prep.demo.standard import Structure, draw_t1, write_t1


@dataclass(frozen=True)
class Scanner:
    """A repetition time and how many frames are taken with it, some 170 s in all."""

    site: str
    tr_s: float
    n_frames: int


PRETRAINING_SCANNERS = (Scanner("north", 0.735, 230), Scanner("south", 0.8, 212))
PATIENTS_SCANNERS = (Scanner("alpha", 2.0, 85), Scanner("beta", 3.0, 57))


@dataclass(frozen=True)
class Coupling:
    """A planted change of correlation between two sets of networks."""

    between: tuple[str, ...]
    and_: tuple[str, ...]
    by: float


@dataclass(frozen=True)
class Amplitude:
    """A planted change of the size of fluctuations in a set of networks, as a natural logarithm."""

    of: tuple[str, ...]
    log_by: float


#: Names of the random streams. Cohorts may be renamed without their data changing.
PRETRAINING_STREAM, PATIENTS_STREAM = "town", "clinic"

#: Standard deviation of the logarithm of a signal's size over subjects, of a whole network and of a parcel beside it.
NETWORK_SPREAD, PARCEL_SPREAD = 0.15, 0.1

#: Patients against controls.
GROUP_COUPLINGS = (
    Coupling(("DefaultA",), ("ContA", "ContB"), -0.22),
    Coupling(("SomMotA", "SomMotB"), ("SomMotA", "SomMotB"), 0.18),
)
GROUP_AMPLITUDES = (Amplitude(("DefaultA", "DefaultB"), -0.36),)
GROUP_STRUCTURE = Structure(ventricles_mm=1.2, medial_temporal=-0.06)
#: Per standard deviation of the cognition score.
SCORE_COUPLINGS = (Coupling(("DorsAttnA", "DorsAttnB"), ("SalVentAttnA", "SalVentAttnB"), 0.14),)
SCORE_AMPLITUDES = (Amplitude(("DorsAttnA", "DorsAttnB"), 0.2),)
SCORE_STRUCTURE = Structure(frontal=0.025)


@dataclass(frozen=True)
class SeriesSubject:
    """A subject of parcel series. `patient` and `score` are zero where nothing is planted."""

    label: str
    scanner: Scanner
    patient: int = 0
    score: float = 0.0


def subject_connectivity(names: tuple[str, ...], matrix: np.ndarray, subject: SeriesSubject) -> np.ndarray:
    """Expected correlations of a subject, (R, R): the group's mean and the planted effects."""
    planted = [(c, subject.patient) for c in GROUP_COUPLINGS] + [(c, subject.score) for c in SCORE_COUPLINGS]
    for coupling, dose in planted:
        if dose:
            a, b = (series.in_networks(names, networks) for networks in (coupling.between, coupling.and_))
            matrix = series.shift_coupling(matrix, a, b, coupling.by * dose)
    return series.as_correlation(matrix)


def subject_amplitude(names: tuple[str, ...], subject: SeriesSubject) -> np.ndarray:
    """Planted factor of a subject's fluctuations, (R,)."""
    log = np.zeros(len(names))
    for amplitude, dose in [(a, subject.patient) for a in GROUP_AMPLITUDES] + [
        (a, subject.score) for a in SCORE_AMPLITUDES
    ]:
        log += dose * amplitude.log_by * series.in_networks(names, amplitude.of)
    return np.exp(log)


def subject_structure(subject: SeriesSubject) -> Structure:
    """Planted changes of a subject's T1."""
    group, score = asdict(GROUP_STRUCTURE), asdict(SCORE_STRUCTURE)
    return Structure(**{key: subject.patient * group[key] + subject.score * score[key] for key in group})


def draw_series(stream: str, seed: int, subject: SeriesSubject) -> np.ndarray:
    """A subject's parcel means in scanner units, (R, T) float32: a mean of thousands, changes of per cents."""
    rng = generator(seed, stream, subject.label, "series")
    parcels = sources.atlas().names
    mean = subject_connectivity(parcels, sources.connectivity(), subject)
    own = series.individual(rng, mean)
    unit = series.draw(rng, own, subject.scanner.n_frames, subject.scanner.tr_s, sources.real_spectrum())
    network, n_networks = series.network_numbers(parcels)
    varied = rng.normal(0, NETWORK_SPREAD, n_networks)[network] + rng.normal(0, PARCEL_SPREAD, len(parcels))
    unit *= (subject_amplitude(parcels, subject) * np.exp(varied))[:, None]
    # parcels differ in brightness in the same way in all subjects (coil, susceptibility), subjects in gain
    brightness = generator(seed, "parcels").normal(1, 0.12, len(parcels))
    level = 9000 * brightness * np.exp(rng.normal(0, 0.08)) * rng.normal(1, 0.02, len(parcels))
    return (level[:, None] * (1 + 0.006 * unit)).astype(np.float32)


def write_series(root: Path, subject: SeriesSubject, task: str, values: np.ndarray) -> None:
    """Write one run as a table, one row a frame and one column a parcel, with its sidecar."""
    label = sources.ATLAS.label
    stem = f"sub-{subject.label}_task-{task}_atlas-{label}_stat-mean_timeseries"
    func = root / f"sub-{subject.label}" / "func"
    folder.write_series(func / f"{stem}.parquet", sources.atlas().names, values)
    write_json(
        func / f"{stem}.json",
        {
            "TaskName": task,
            "RepetitionTime": subject.scanner.tr_s,
            "NumberOfVolumes": int(values.shape[1]),
            "Atlas": label,
            "Units": "arbitrary",
            "Synthetic": True,
        },
    )


def pretraining_subjects(n: int) -> list[SeriesSubject]:
    """`n` subjects, alternating between the scanners."""
    return [SeriesSubject(f"t{i + 1:03d}", PRETRAINING_SCANNERS[i % 2]) for i in range(n)]


def patient_subjects(seed: int, n: int) -> list[SeriesSubject]:
    """`n` subjects: controls and patients in equal numbers at both sites, scores with mean 0 and sd 1 in each group."""
    rng = generator(seed, PATIENTS_STREAM, "people")
    scores = np.zeros(n)
    patient = np.arange(n) // 2 % 2
    for group in (0, 1):
        drawn = rng.standard_normal((patient == group).sum())
        scores[patient == group] = (drawn - drawn.mean()) / drawn.std()
    return [
        SeriesSubject(f"c{i + 1:03d}", PATIENTS_SCANNERS[i % 2], int(patient[i]), float(scores[i]))
        for i in range(n)
    ]


def fill_pretraining(
    root: Path, seed: int, n: int = 28, step_mm: float = 2.0, each: folder.Each = map
) -> None:
    """Write the cohort `pretraining`."""
    subjects = pretraining_subjects(n)
    _fill(root, PRETRAINING_STREAM, seed, subjects, step_mm, {}, {}, each)
    folder.describe(
        root,
        "BHX demo cohort pretraining",
        "Parcel series at TR 0.735 and 0.8 s with the mean connectivity of HCP people and the spectrum of a LEMON "
        "scan, and T1 volumes that are deformations of one average head. For pretraining; nothing is planted.",
        derivative=True,
        version=__version__,
    )


def fill_patients(root: Path, seed: int, n: int = 120, step_mm: float = 2.0, each: folder.Each = map) -> None:
    """Write the cohort `patients` with its planted effects and their sizes."""
    subjects = patient_subjects(seed, n)
    columns = {
        "diagnosis": ["patient" if s.patient else "control" for s in subjects],
        "cognition": np.array([s.score for s in subjects]),
    }
    described = {
        "diagnosis": {
            "Description": "Drawn at random; planted in series and T1, see planted.json",
            "Levels": {"control": "nothing planted", "patient": "group effect planted"},
        },
        "cognition": {
            "Description": "Drawn at random; planted in series and T1, see planted.json",
            "Units": "z-score",
        },
    }
    _fill(root, PATIENTS_STREAM, seed, subjects, step_mm, columns, described, each)
    write_json(root / "planted.json", planted(subjects))
    folder.describe(
        root,
        "BHX demo cohort patients",
        "Parcel series at TR 2.0 and 3.0 s and T1 volumes, made as those of the cohort pretraining, with a planted "
        "difference between controls and patients and a planted effect of a score, in both modalities.\n\n"
        "Their sizes stand in planted.json. They are no real diagnoses and no real test scores.",
        derivative=True,
        version=__version__,
    )


def planted(subjects: list[SeriesSubject]) -> dict[str, Any]:
    """Sizes of the planted effects, as requested and as found in the connectivity that subjects are drawn from."""
    parcels, matrix = sources.atlas().names, sources.connectivity()
    plain = SeriesSubject("x", PATIENTS_SCANNERS[0])
    base = subject_connectivity(parcels, matrix, plain)
    patient = subject_connectivity(parcels, matrix, SeriesSubject("x", plain.scanner, patient=1))
    high_score = subject_connectivity(parcels, matrix, SeriesSubject("x", plain.scanner, score=1.0))

    def planted_couplings(couplings: tuple[Coupling, ...], changed: np.ndarray) -> list[dict[str, Any]]:
        rows = []
        for c in couplings:
            a, b = (series.in_networks(parcels, networks) for networks in (c.between, c.and_))
            block = np.outer(a, b) & ~np.eye(len(parcels), dtype=bool)
            rows.append(
                {
                    "between": c.between,
                    "and": c.and_,
                    "asked_change_of_r": c.by,
                    "mean_r_before": round(float(base[block].mean()), 4),
                    "mean_r_after": round(float(changed[block].mean()), 4),
                }
            )
        return rows

    def sizes(amplitudes: tuple[Amplitude, ...]) -> list[dict[str, Any]]:
        return [{"of": a.of, "factor": round(float(np.exp(a.log_by)), 4)} for a in amplitudes]

    return {
        "Synthetic": True,
        "diagnosis": {
            "what": "patient against control",
            "said": in_words("patients against controls", GROUP_COUPLINGS, GROUP_AMPLITUDES, GROUP_STRUCTURE),
            "couplings": planted_couplings(GROUP_COUPLINGS, patient),
            "amplitudes": sizes(GROUP_AMPLITUDES),
            "structure": asdict(GROUP_STRUCTURE),
        },
        "cognition": {
            "what": "per standard deviation of the score",
            "said": in_words("each standard deviation", SCORE_COUPLINGS, SCORE_AMPLITUDES, SCORE_STRUCTURE),
            "couplings": planted_couplings(SCORE_COUPLINGS, high_score),
            "amplitudes": sizes(SCORE_AMPLITUDES),
            "structure": asdict(SCORE_STRUCTURE),
        },
        "structure_units": {
            "ventricles_mm": "outward displacement of tissue 12 mm from places along the lateral ventricles",
            "medial_temporal": "relative intensity at the hippocampi (Gaussian, sd 12 mm)",
            "frontal": "relative intensity in frontal white matter (Gaussian, sd 16 mm)",
        },
        "subjects": {s.label: {"patient": s.patient, "cognition": round(s.score, 6)} for s in subjects},
    }


def in_words(
    whom: str, couplings: Sequence[Coupling], amplitudes: Sequence[Amplitude], structure: Structure
) -> str:
    """State what is planted, for who reads a table of scores."""
    said = [
        f"correlation {'within' if c.between == c.and_ else 'of'} {' and '.join(c.between)} "
        f"{'' if c.between == c.and_ else 'with ' + ' and '.join(c.and_) + ' '}{c.by:+.2f}"
        for c in couplings
    ]
    said += [f"fluctuations of {' and '.join(a.of)} x {np.exp(a.log_by):.2f}" for a in amplitudes]
    t1 = [
        f"ventricles {structure.ventricles_mm:+.1f} mm" if structure.ventricles_mm else "",
        f"intensity at the hippocampi {structure.medial_temporal:+.1%}" if structure.medial_temporal else "",
        f"intensity of frontal white matter {structure.frontal:+.1%}" if structure.frontal else "",
    ]
    return f"{whom}: in the series, {', '.join(said)}; in the T1, {', '.join(filter(None, t1))}"


def _fill(
    root: Path,
    stream: str,
    seed: int,
    subjects: list[SeriesSubject],
    step_mm: float,
    columns: Mapping[str, Any],
    described: Mapping[str, Any],
    each: folder.Each,
) -> None:
    folder.write_participants(
        root,
        generator(seed, stream, "participants"),
        [s.label for s in subjects],
        {"site": [s.scanner.site for s in subjects], **columns},
        {"site": {"Description": "One site for each repetition time"}, **described},
    )
    folder.for_each(partial(_write, root, stream, seed, step_mm), subjects, each)


def _write(root: Path, stream: str, seed: int, step_mm: float, subject: SeriesSubject) -> None:
    write_series(root, subject, "rest", draw_series(stream, seed, subject))
    grid, rng = head.standard_grid(step_mm), generator(seed, stream, subject.label, "t1w")
    write_t1(root, subject.label, grid, *draw_t1(rng, grid, subject_structure(subject)))
