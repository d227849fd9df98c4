"""The fake results, written once, and figures that are drawn once."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType

import fake_results
import pytest

from bhx_prep.report import figures, inside_figures, page

INSIDE = ("hub_attention", "plane", "values_plane", "slices", "pattern")
FIGURES = ("motion", "trace", "carpet", "connectivity", "spectrum", "normaliser", "curves", "estimates")


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """A results folder with three cohorts, an experiment and tables of both kinds."""
    root = tmp_path_factory.mktemp("study") / "results"
    fake_results.write(root)
    return root


@pytest.fixture(scope="session")
def drawing_once() -> Callable[[], AbstractContextManager[None]]:
    """Within this context equal figures are drawn once in the session: drawing takes most of the time of a page."""
    drawn: dict[bytes, str] = {}

    def remembering(module: ModuleType, name: str) -> Callable[..., str]:
        draw = getattr(module, name)

        def figure(*args: object) -> str:
            key = pickle.dumps((name, args))
            if key not in drawn:
                drawn[key] = draw(*args)
            return drawn[key]

        return figure

    @contextmanager
    def context() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module, names in ((figures, FIGURES), (inside_figures, INSIDE)):
                for name in names:
                    patch.setattr(module, name, remembering(module, name))
            yield

    return context


@pytest.fixture(scope="session")
def text(results, drawing_once) -> str:
    """The page of these results."""
    with drawing_once():
        return page.render(fake_results.CONFIG, results)
