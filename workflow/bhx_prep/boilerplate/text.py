"""Methods text of a study: Markdown on the steps that ran, with exactly their references."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from bhx_model import __version__
from bhx_model.atomic_write import atomic_write
from bhx_prep.boilerplate import features, model, preprocessing
from bhx_prep.boilerplate.references import OWN, bibliography, entries
from bhx_prep.config.config import Config

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Methods:
    """A text with citations of Pandoc's, and its references in BibTeX."""

    text: str
    bib: str


def describe(config: Config, results: Path, cohorts: tuple[str, ...] = ()) -> Methods:
    """Describe what ran.

    Parameters
    ----------
    config : Config
    results : Path
        Folder of the results.
    cohorts : tuple of str
        These alone, without what was trained and predicted; all, with it, when empty.
    """
    parts = [
        "# Methods",
        "What ran, as its files say; what has not run is not here. References: methods.bib. For a manuscript: "
        "`pandoc --citeproc --bibliography methods.bib methods.md -o methods.docx`.",
        f"All steps were run by BHX {__version__} on Snakemake [@snakemake].",
    ]
    theirs: dict[str, str] = {}
    for name in cohorts or tuple(config.cohorts):
        section, folder = config.cohorts[name], results / name
        said = [
            features.n_scans(folder),
            *preprocessing.paragraphs(section, folder),
            features.paragraph(section, folder, config.features, config.atlas),
        ]
        if not said[0]:
            continue
        simulated = " SYNTHETIC: nobody was measured." if section.synthetic else ""
        said[0] = f"Cohort {name}: {said[0]}{simulated}"
        parts += [f"## Cohort {name}", *filter(None, said)]
        theirs = {**preprocessing.bibliography(section, folder), **theirs}
    if not cohorts:
        trained = [
            model.experiment(name, one, results / "experiments" / name)
            for name, one in config.experiments.items()
        ]
        scored = [model.endpoint(name, one, results) for name, one in config.endpoints.items()]
        parts += ["## Model", *filter(None, trained)] if any(trained) else []
        parts += ["## Prediction", *filter(None, scored)] if any(scored) else []
    text = "\n\n".join(parts) + "\n"
    bib, missing = bibliography(text, entries(OWN.read_text(encoding="utf-8")), theirs)
    if missing:
        logger.warning(
            "methods.bib has no entry of %s: fMRIPrep's CITATION.bib is not in its logs", ", ".join(missing)
        )
    return Methods(text, bib)


def write(methods: Methods, folder: Path) -> None:
    """Write ``methods.md`` and ``methods.bib``."""
    for name, content in (("methods.bib", methods.bib), ("methods.md", methods.text)):
        with atomic_write(folder / name) as part:
            part.write_text(content, encoding="utf-8")
