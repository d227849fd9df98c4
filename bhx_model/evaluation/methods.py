"""The methods by which an endpoint is predicted: what each reads, and its name in tables and figures. Needs no torch.

A row of a table is a method, and for a method that reads a model the experiment whose model it is. Baselines read what
no model made, so they need no experiment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Stage = Literal["structure", "function", "fusion"]
Modality = Literal["bold", "t1w"]
Reads = Literal["hub tokens", "function tokens", "structure tokens", "connectivity", "volumes", "covariates"]
Model = Literal["linear", "svm", "kernel ridge", "epochs"]

#: Suffix of a method that reads the tokens of untrained weights, the control of the one without it.
UNTRAINED: Final = "_untrained"
#: What a kind of connectivity is read by: suffix of the name, label, in figures, and model.
_MODELS: Final[tuple[tuple[str, str, str, Model], ...]] = (
    ("", "linear model", "", "linear"),
    ("_svm", "support vector machine", ", SVM", "svm"),
    ("_kernel_ridge", "kernel ridge", ", kernel ridge", "kernel ridge"),
)
_STAGES: Final[Mapping[Reads, Stage]] = {
    "hub tokens": "fusion",
    "function tokens": "function",
    "structure tokens": "structure",
}
_MODALITIES: Final[Mapping[Reads, tuple[Modality, ...]]] = {
    "hub tokens": ("bold", "t1w"),
    "function tokens": ("bold",),
    "structure tokens": ("t1w",),
    "connectivity": ("bold",),
    "volumes": (),
    "covariates": (),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A method that reads a trained model, or a baseline."""

    name: str
    """In the configuration and in ``metrics.json``."""
    label: str
    """In tables."""
    short: str
    """In figures."""
    reads: Reads
    array: str = ""
    """What of it: array of a file of tokens, kind of connectivity, or group of covariates."""
    model: Model = "linear"
    """`linear` is a logistic or ridge regression; what has epochs has settings, of the others only a penalty is chosen."""
    permuted: bool = False
    """Whether the labels of the training and validation subjects are permuted before it is fitted."""

    @property
    def has_epochs(self) -> bool:
        """Whether it is trained in epochs, with settings."""
        return self.model == "epochs"

    @property
    def stage(self) -> Stage | None:
        """Stage whose output it reads; None for a baseline."""
        return _STAGES.get(self.reads)

    @property
    def needs_experiment(self) -> bool:
        """Whether it reads a model; a baseline does not."""
        return self.stage is not None

    @property
    def is_untrained(self) -> bool:
        """Whether it reads untrained weights, which have no training subjects."""
        return self.name.endswith(UNTRAINED)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What of a subject has to be in the shards; what else a baseline reads may be missing of some."""
        return _MODALITIES[self.reads]


def _connectivity(name: str, array: str, label: str, short: str) -> list[Method]:
    """A kind of connectivity, read by three models."""
    return [
        Method(
            name=f"{name}{suffix}",
            label=f"{label} + {what}",
            short=f"{short}{brief}",
            reads="connectivity",
            array=array,
            model=model,
        )
        for suffix, what, brief, model in _MODELS
    ]


def _structure() -> list[Method]:
    """Readouts of structure tokens."""
    return [
        Method(
            name="structure", label="Structure tokens, mean", short="structure, mean", reads="structure tokens",
            array="mean",
        ),
        Method(
            name="structure_attentive", label="Structure tokens, attentive probe", short="structure, attentive",
            reads="structure tokens", array="blocks", model="epochs",
        ),
    ]  # fmt: skip


def _function(readout: str, label: str, short: str, model: Model = "linear") -> list[Method]:
    """A readout of function tokens, and its control."""
    name = "attentive" if readout == "rois" else readout
    return [
        Method(
            name=f"function_{name}{suffix}",
            label=f"Function tokens, {label}{', untrained weights' if suffix else ''}",
            short=f"function, {short}{', untrained' if suffix else ''}",
            reads="function tokens",
            array=f"{readout}{suffix}",
            model=model,
        )
        for suffix in ("", UNTRAINED)
    ]


def _covariates(name: str, label: str) -> Method:
    """A linear model of what is no image."""
    return Method(
        name=name,
        label=f"{label} + linear model",
        short=label[0].lower() + label[1:],
        reads="covariates",
        array=name,
    )


_ALL = (
    *_connectivity("fc", "correlation", "Functional connectivity", "FC"),
    *_connectivity("fc_partial", "partial", "Partial correlation", "partial correlation"),
    *_connectivity("fc_tangent", "tangent", "Tangent-space connectivity", "tangent"),
    Method(
        name="brainnetcnn", label="BrainNetCNN", short="BrainNetCNN", reads="connectivity", array="correlation",
        model="epochs",
    ),
    Method(
        name="brainnettf", label="BrainNetTF", short="BrainNetTF", reads="connectivity", array="correlation",
        model="epochs",
    ),
    Method(name="volumes", label="Regional morphometry + linear model", short="morphometry", reads="volumes"),
    *_structure(),
    *_function("mean", "mean", "mean"),
    *_function("regions", "regions", "regions"),
    *_function("covariance", "covariance", "covariance"),
    *_function("rois", "attentive probe", "attentive", "epochs"),
    Method(name="probe", label="Hub tokens, linear probe", short="hub, linear probe", reads="hub tokens"),
    Method(name="hub_tokens", label="Hub tokens, linear probe of each", short="hub, each", reads="hub tokens"),
    Method(name="covariance", label="Hub tokens, covariance", short="hub, covariance", reads="hub tokens"),
    Method(
        name="attentive", label="Hub tokens, attentive probe", short="hub, attentive probe", reads="hub tokens",
        model="epochs",
    ),
    Method(
        name="finetune", label="Hub tokens, fine-tuned", short="hub, fine-tuned", reads="hub tokens", model="epochs"
    ),
    _covariates("age_sex", "Age and sex"),
    _covariates("site", "Site"),
    _covariates("motion", "Mean framewise displacement"),
    _covariates("acquisition", "Acquisition"),
    Method(
        name="permuted", label="Functional connectivity, labels permuted", short="FC, permuted", reads="connectivity",
        array="correlation", permuted=True,
    ),
)  # fmt: skip

#: Every method by its name, in the order of the tables' rows.
METHODS: Final[Mapping[str, Method]] = MappingProxyType({method.name: method for method in _ALL})

#: Names of those that need no experiment.
BASELINES: Final = tuple(name for name, method in METHODS.items() if not method.needs_experiment)
#: Of these the networks, which are trained in epochs and need PyTorch.
NETWORKS: Final = tuple(name for name in BASELINES if METHODS[name].has_epochs)

#: Names of all arrays of a file of function tokens that a method reads.
ARRAYS: Final = tuple(method.array for method in _ALL if method.reads == "function tokens")
