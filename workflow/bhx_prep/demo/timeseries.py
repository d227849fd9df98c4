"""The cohorts `pretraining` and `patients`: parcel series as tables and T1 volumes, the input `timeseries`.

Series have HCP's mean connectivity and the LEMON scan's spectrum; each person varies around the former and in how
much each network fluctuates. `patients` has two planted effects of stated size, one of a group and one of a continuous
score, each in connectivity, in the size of a network's fluctuations and in T1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bhx_prep.demo import folder, head, series, sources
from bhx_prep.demo.chance import generator
from bhx_prep.demo.standard import Structure, draw_t1, write_t1
from bhx_prep.demo.version import version


@dataclass(frozen=True)
class Scanner:
    """A repetition time and how many frames are taken with it, some 170 s in all."""

    site: str
    tr_s: float
    n_frames: int


TOWN_SCANNERS = (Scanner("north", 0.735, 230), Scanner("south", 0.8, 212))
CLINIC_SCANNERS = (Scanner("alpha", 2.0, 85), Scanner("beta", 3.0, 57))


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

#: Standard deviation of the logarithm of a signal's size over people, of a whole network and of a parcel beside it.
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
class Person:
    """Who is drawn. `patient` and `score` are zero where nothing is planted."""

    subject: str
    scanner: Scanner
    patient: int = 0
    score: float = 0.0


def person_connectivity(names: tuple[str, ...], matrix: np.ndarray, person: Person) -> np.ndarray:
    """Expected correlations of a person, (R, R): the group's mean with what is planted."""
    planted = [(c, person.patient) for c in GROUP_COUPLINGS] + [(c, person.score) for c in SCORE_COUPLINGS]
    for coupling, dose in planted:
        if dose:
            a, b = (series.in_networks(names, networks) for networks in (coupling.between, coupling.and_))
            matrix = series.shift_coupling(matrix, a, b, coupling.by * dose)
    return series.as_correlation(matrix)


def person_amplitude(names: tuple[str, ...], person: Person) -> np.ndarray:
    """Expected size of a person's fluctuations against everybody's, (R,): what is planted."""
    log = np.zeros(len(names))
    for amplitude, dose in [(a, person.patient) for a in GROUP_AMPLITUDES] + [
        (a, person.score) for a in SCORE_AMPLITUDES
    ]:
        log += dose * amplitude.log_by * series.in_networks(names, amplitude.of)
    return np.exp(log)


def person_structure(person: Person) -> Structure:
    """What is planted in a person's T1."""
    group, score = asdict(GROUP_STRUCTURE), asdict(SCORE_STRUCTURE)
    return Structure(**{key: person.patient * group[key] + person.score * score[key] for key in group})


def draw_series(stream: str, seed: int, person: Person) -> np.ndarray:
    """A person's parcel means as a scanner would give them, (R, T) float32: a mean of thousands, changes of per cents."""
    rng = generator(seed, stream, person.subject, "series")
    parcels = sources.atlas().names
    mean = person_connectivity(parcels, sources.connectivity(), person)
    own = series.individual(rng, mean)
    unit = series.draw(rng, own, person.scanner.n_frames, person.scanner.tr_s, sources.real_spectrum())
    network, n_networks = series.network_numbers(parcels)
    varied = rng.normal(0, NETWORK_SPREAD, n_networks)[network] + rng.normal(0, PARCEL_SPREAD, len(parcels))
    unit *= (person_amplitude(parcels, person) * np.exp(varied))[:, None]
    # parcels differ in brightness in the same way in everybody (coil, susceptibility), people in gain
    brightness = generator(seed, "parcels").normal(1, 0.12, len(parcels))
    level = 9000 * brightness * np.exp(rng.normal(0, 0.08)) * rng.normal(1, 0.02, len(parcels))
    return (level[:, None] * (1 + 0.006 * unit)).astype(np.float32)


def write_series(root: Path, person: Person, task: str, values: np.ndarray) -> None:
    """Write one run as a table, one row a frame and one column a parcel, with its sidecar."""
    label = sources.ATLAS.label
    stem = f"sub-{person.subject}_task-{task}_atlas-{label}_stat-mean_timeseries"
    func = root / f"sub-{person.subject}" / "func"
    folder.write_series(func / f"{stem}.parquet", sources.atlas().names, values)
    folder.write_json(
        func / f"{stem}.json",
        {
            "TaskName": task,
            "RepetitionTime": person.scanner.tr_s,
            "NumberOfVolumes": int(values.shape[1]),
            "Atlas": label,
            "Units": "arbitrary",
            "Synthetic": True,
        },
    )


def pretraining_subjects(n: int) -> list[Person]:
    """`n` people, every other one from the other scanner."""
    return [Person(f"t{i + 1:03d}", TOWN_SCANNERS[i % 2]) for i in range(n)]


def patient_subjects(seed: int, n: int) -> list[Person]:
    """`n` people: controls and patients in equal numbers at both sites, scores with mean 0 and sd 1 in each group."""
    rng = generator(seed, PATIENTS_STREAM, "people")
    scores = np.zeros(n)
    patient = np.arange(n) // 2 % 2
    for group in (0, 1):
        drawn = rng.standard_normal((patient == group).sum())
        scores[patient == group] = (drawn - drawn.mean()) / drawn.std()
    return [
        Person(f"c{i + 1:03d}", CLINIC_SCANNERS[i % 2], int(patient[i]), float(scores[i])) for i in range(n)
    ]


def fill_pretraining(root: Path, seed: int, n: int = 28, step_mm: float = 2.0) -> None:
    """Write the cohort `pretraining`."""
    people = pretraining_subjects(n)
    _fill(root, PRETRAINING_STREAM, seed, people, step_mm, {}, {})
    folder.describe(
        root,
        "BHX demo cohort pretraining",
        "Parcel series at TR 0.735 and 0.8 s with the mean connectivity of HCP people and the spectrum of a LEMON "
        "scan, and T1 volumes that are deformations of one average head. For pretraining; nothing is planted.",
        derivative=True,
        version=version(),
    )


def fill_patients(root: Path, seed: int, n: int = 40, step_mm: float = 2.0) -> None:
    """Write the cohort `patients` with its planted effects and their sizes."""
    people = patient_subjects(seed, n)
    columns = {
        "diagnosis": ["patient" if p.patient else "control" for p in people],
        "cognition": np.array([p.score for p in people]),
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
    _fill(root, PATIENTS_STREAM, seed, people, step_mm, columns, described)
    folder.write_json(root / "planted.json", planted(people))
    folder.describe(
        root,
        "BHX demo cohort patients",
        "Parcel series at TR 2.0 and 3.0 s and T1 volumes, made as those of the cohort pretraining, with a planted "
        "difference between controls and patients and a planted effect of a score, in both modalities.\n\n"
        "Their sizes stand in planted.json. Nobody was ill, and nobody was tested.",
        derivative=True,
        version=version(),
    )


def planted(people: list[Person]) -> dict[str, Any]:
    """Sizes of the planted effects, as asked for and as they came out in the connectivity that people are drawn from."""
    parcels, matrix = sources.atlas().names, sources.connectivity()
    plain = Person("x", CLINIC_SCANNERS[0])
    base = person_connectivity(parcels, matrix, plain)
    ill = person_connectivity(parcels, matrix, Person("x", plain.scanner, patient=1))
    clever = person_connectivity(parcels, matrix, Person("x", plain.scanner, score=1.0))

    def metadata(couplings: tuple[Coupling, ...], changed: np.ndarray) -> list[dict[str, Any]]:
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
            "couplings": metadata(GROUP_COUPLINGS, ill),
            "amplitudes": sizes(GROUP_AMPLITUDES),
            "structure": asdict(GROUP_STRUCTURE),
        },
        "cognition": {
            "what": "per standard deviation of the score",
            "couplings": metadata(SCORE_COUPLINGS, clever),
            "amplitudes": sizes(SCORE_AMPLITUDES),
            "structure": asdict(SCORE_STRUCTURE),
        },
        "structure_units": {
            "ventricles_mm": "outward displacement of tissue 12 mm from places along the lateral ventricles",
            "medial_temporal": "relative intensity at the hippocampi (Gaussian, sd 12 mm)",
            "frontal": "relative intensity in frontal white matter (Gaussian, sd 16 mm)",
        },
        "people": {p.subject: {"patient": p.patient, "cognition": round(p.score, 6)} for p in people},
    }


def _fill(
    root: Path,
    stream: str,
    seed: int,
    people: list[Person],
    step_mm: float,
    columns: Mapping[str, Any],
    described: Mapping[str, Any],
) -> None:
    rng = generator(seed, stream, "participants")
    ages = rng.uniform(20, 75, len(people)).round(1)
    sexes = rng.choice(["F", "M"], len(people))
    folder.write_participants(
        root,
        {
            "participant_id": [f"sub-{p.subject}" for p in people],
            "age": ages,
            "sex": sexes,
            "site": [p.scanner.site for p in people],
            **columns,
        },
        {"site": {"Description": "One site for each repetition time"}, **described},
    )
    grid = head.standard_grid(step_mm)
    for person in people:
        write_series(root, person, "rest", draw_series(stream, seed, person))
        rng = generator(seed, stream, person.subject, "t1w")
        write_t1(root, person.subject, grid, *draw_t1(rng, grid, person_structure(person)))
