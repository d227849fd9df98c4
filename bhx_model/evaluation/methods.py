"""The methods by which an endpoint is predicted: what each reads, and its name in tables and figures. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

#: Suffix of a method that reads the tokens of untrained weights, the control of the one without it.
UNTRAINED: Final = "_untrained"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A method that reads a trained model."""

    name: str
    """In the configuration and in ``metrics.json``."""
    label: str
    """In tables."""
    short: str
    """In figures."""
    reads: Literal["hub tokens", "function tokens"]
    array: str = ""
    """Of function tokens: name of the array that is read."""
    has_epochs: bool = False
    """Whether it is trained, with settings; the others are linear models of which only the penalty is chosen."""

    @property
    def stage(self) -> Literal["function", "fusion"]:
        """Stage whose output it reads."""
        return "fusion" if self.reads == "hub tokens" else "function"


def _function(readout: str, label: str, short: str, *, has_epochs: bool = False) -> list[Method]:
    """A readout of function tokens, and its control."""
    name = "attentive" if readout == "rois" else readout
    return [
        Method(
            name=f"function_{name}{suffix}",
            label=f"Function tokens, {label}{', untrained weights' if suffix else ''}",
            short=f"function, {short}{', untrained' if suffix else ''}",
            reads="function tokens",
            array=f"{readout}{suffix}",
            has_epochs=has_epochs,
        )
        for suffix in ("", UNTRAINED)
    ]


_ALL = (
    *_function("mean", "mean", "mean"),
    *_function("regions", "regions", "regions"),
    *_function("covariance", "covariance", "covariance"),
    *_function("rois", "attentive probe", "attentive", has_epochs=True),
    Method(name="probe", label="Hub tokens, linear probe", short="hub, linear probe", reads="hub tokens"),
    Method(name="covariance", label="Hub tokens, covariance", short="hub, covariance", reads="hub tokens"),
    Method(
        name="attentive", label="Hub tokens, attentive probe", short="hub, attentive probe", reads="hub tokens",
        has_epochs=True,
    ),
    Method(name="finetune", label="Hub tokens, fine-tuned", short="hub, fine-tuned", reads="hub tokens", has_epochs=True),
)  # fmt: skip

#: Every method by its name, in the order of the tables' rows.
METHODS: Final[Mapping[str, Method]] = MappingProxyType({method.name: method for method in _ALL})

#: Names of all arrays of a file of function tokens that a method reads.
ARRAYS: Final = tuple(method.array for method in _ALL if method.array)
