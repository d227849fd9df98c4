"""Known data sets that a cohort's `layout` can name: the recipes in `workflow/resources/cohorts` that define one.

How the files of those are found whose names are their own is in `bhx_prep.ingest.layouts`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Final

from bhx_prep.config import recipes
from bhx_prep.config.recipes import Recipe


class _Known(Mapping[str, Recipe]):
    """Recipes by `layout`, each read on first use."""

    def __getitem__(self, layout: str) -> Recipe:
        found = recipes.load(layout) if layout in recipes.names() else None
        if found is None or found.layout is None:
            raise KeyError(layout)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(_layouts())

    def __len__(self) -> int:
        return len(_layouts())


@functools.cache
def _layouts() -> tuple[str, ...]:
    return tuple(name for name in recipes.names() if recipes.load(name).layout is not None)


#: By the cohort's key `layout`, which is the name of the recipe, too.
KNOWN: Final[Mapping[str, Recipe]] = _Known()
