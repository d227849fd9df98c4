"""ROI names and axes that a cohort's configuration states for tables that hold none.

Cheap to import: it is read while a study is planned, and reaches the jobs as a settings file.
"""

from __future__ import annotations

from typing import Any, Final

from bhx_model.errors import ConfigError, DataError
from bhx_prep.config.cohorts import CohortSection
from bhx_prep.io import name_lists

#: List of names that holds for a cohort where it lies in the root.
DEFAULT: Final = "names.txt"


def stated_names(cohort: CohortSection, name: str = "cohort") -> dict[str, Any]:
    """Axes and names that a cohort states, as JSON values.

    Parameters
    ----------
    cohort : CohortSection
    name : str
        Of the cohort, for the sentence.

    Returns
    -------
    dict
        ``orientation`` (str or None), ``names`` (list of str or None), ``source`` (where they are from, or why the list in
        the root cannot be used), and ``is_explicit`` (whether the configuration names the list).

    Raises
    ------
    ConfigError
        If the list that the configuration names cannot be used.
    """
    stated = {
        "orientation": cohort.orientation,
        "names": None,
        "source": "",
        "is_explicit": cohort.names is not None,
    }
    if cohort.input != "timeseries":
        return stated
    path = cohort.names or cohort.root / DEFAULT
    if cohort.names is None and not path.is_file():
        return stated
    try:
        return {**stated, "names": list(name_lists.read(path)), "source": path.name}
    except DataError as error:
        if cohort.names is None:  # tables may have names of their own: only those without need it
            return {**stated, "source": str(error)}
        raise ConfigError(f"cohorts.{name}.names: {error}") from error
