"""Standard spaces: which are usable as they are, and which one a file name states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

#: Spaces of the adult MNI152 brain whose volumes are used, the default first. They differ by some millimetres.
MNI152: Final = ("MNI152NLin2009cAsym", "MNI152NLin6Asym")
#: Spaces of surfaces.
SURFACES: Final = ("fsLR", "fsaverage5")
#: Other templates of TemplateFlow, which are used when a cohort's `space` asks for them.
OTHERS: Final = (
    "MNI152Lin",
    "MNI152NLin2009aAsym",
    "MNI152NLin2009aSym",
    "MNI152NLin2009bAsym",
    "MNI152NLin2009bSym",
    "MNI152NLin2009cSym",
    "MNI152NLin6Sym",
    "MNI305",
    "MNIColin27",
    "NKI",
    "OASIS30ANTs",
    "PNC",
)
#: Templates of children, one for every age: ``MNIPediatricAsym:cohort-3``.
BY_AGE: Final = ("MNIPediatricAsym", "MNIInfant", "UNCInfant", "dHCPVolAsym", "CPAC")

# C-PAC writes MNI152NLin6ASym
_SPELT: Final = {name.casefold(): name for name in (*MNI152, *SURFACES, *OTHERS, *BY_AGE)}
_BY_AGE = re.compile(rf"(?:{'|'.join(BY_AGE)}):cohort-\d+")


def space_of(entities: Mapping[str, str]) -> str | None:
    """The standard space that a file name states, as ``--output-spaces`` has it; None if it states none."""
    space, age = entities.get("space"), entities.get("cohort")
    space = _SPELT.get(space.casefold(), space) if space else None
    return f"{space}:cohort-{age}" if space and age else space


def is_space(text: str) -> bool:
    """Whether a cohort's `space` may be this."""
    return text in (*MNI152, *SURFACES, *OTHERS) or bool(_BY_AGE.fullmatch(text))


def t1w_spaces(space: str) -> tuple[str, ...]:
    """Spaces of T1w volumes that go with a cohort's `space`, the preferred one first."""
    if space in SURFACES:
        return MNI152
    if space in MNI152:
        return (space, *(other for other in MNI152 if other != space))
    return (space,)
