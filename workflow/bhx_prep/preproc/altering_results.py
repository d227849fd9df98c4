"""Which settings of the preprocessing alter its results: not paths, threads, memory or the handling of failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Keys of section `preproc` that are about the machine or about failures.
OF_THE_MACHINE: Final = frozenset(
    {"backend", "on_failure", "fs_license", "templateflow_home", "fs_subjects_dir"}
)
#: Keys that only fMRIPrep reads.
OF_FMRIPREP: Final = frozenset(
    {"image", "output_spaces", "fmriprep_args", "level", "cifti_output", "subject_anatomical_reference"}
)
#: Keys that only the embedded workflow reads.
OF_EMBEDDED: Final = frozenset({"embedded_resolution_mm", "surfaces"})


def altering_results(preproc: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that alter results; what is not known to be of the machine is one of them.

    Parameters
    ----------
    preproc : mapping
        Section `preproc` of the configuration.
    """
    embedded = preproc.get("backend", "embedded") == "embedded"
    others = OF_FMRIPREP if embedded else OF_EMBEDDED
    kept = {name: value for name, value in preproc.items() if name not in OF_THE_MACHINE | others}
    return {"program": "embedded" if embedded else "fmriprep", **kept}
