"""Labels of an endpoint: values of its column as classes or numbers."""

from __future__ import annotations

from collections.abc import Mapping

from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.ingest.cell_values import KnownValues, far_values, listed, numbers_of
from bhx_prep.ingest.participants import Column
from bhx_prep.io.notes import Kind, brief, note, quote


def read_labels(
    column: Column, spec: EndpointSection
) -> tuple[Mapping[str, int | float], dict[str, str], list[str]]:
    """Labels of subjects.

    Parameters
    ----------
    column : Column
        The column of the endpoint.
    spec : EndpointSection

    Returns
    -------
    labels : mapping
        Subject to the number of its class, or to its value.
    refused : dict
        Subject to the reason why its cell is no label.
    notes : list of str
        What was assumed, and which values are kept although they are far from all others.
    """
    name = brief(column.name)
    if spec.kind == "regression":
        numbers, refused, commas = numbers_of(column.known, name)
        assumed = [f"{name}: decimal commas are read as points"] if commas else []
        if far := far_values(numbers.values()):
            assumed.append(f"{name}: kept, though far from all others, is {counted(far)}")
        return numbers, refused, [note(Kind.TABLE, text) for text in assumed]
    number = {value: i for i, one in enumerate(spec.classes) for value in one.values}
    labels, refused = {}, {}
    expected, values = listed(list(number), 80), KnownValues(number)
    for subject, cell in column.known.items():
        if (value := values.find(cell)) is not None:
            labels[subject] = number[value]
        else:
            refused[subject] = f"{name} is {quote(cell)}, none of the classes' values {expected}"
    return labels, refused, []


def counted(far: list[tuple[float, int]]) -> str:
    """Values and their counts, as text."""
    return ", ".join(f"{value:g} ({n} x)" for value, n in far[:3])
