"""Section `splits` of an endpoint: training, validation and test subjects, and the number of random splits."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from pydantic import Field, model_validator

from bhx_model.errors import ConfigError
from bhx_prep.config.section import Section, UserPath

Scheme = Literal["random", "leave-one-site-out", "file"]


@dataclass(frozen=True)
class Protocol:
    """How subjects are shared out, and what is done with the validation subjects.

    Attributes
    ----------
    shares : tuple of float
        Of train, val and test.
    seeds : int
        Random splits of methods that are linear.
    inner_folds : int
        Random divisions of train and validation subjects, of the sizes of the two, on which a penalty is chosen; 0: it is
        chosen on the validation subjects.
    refit : bool
        Whether the chosen model is fitted again to train and validation subjects.
    metrics : tuple of str
        Metrics that it reports first; none: those of the paper.
    """

    shares: tuple[float, float, float]
    seeds: int
    inner_folds: int = 0
    refit: bool = False
    metrics: tuple[str, ...] = ()


#: By name. `paper`: 6:2:2, chosen on the validation subjects. `brainmarks`: github.com/clane9/Brainmarks, its logistic
#: probe.
PROTOCOLS: Final = MappingProxyType(
    {
        "paper": Protocol((0.6, 0.2, 0.2), seeds=20),
        "brainmarks": Protocol(
            (0.7, 0.15, 0.15), seeds=100, inner_folds=5, refit=True, metrics=("balanced_accuracy", "macro_f1")
        ),
    }
)
#: Splits of the methods that are trained in epochs, as many as the paper's runs.
FINETUNE_SEEDS: Final = 3


class SplitsSection(Section):
    """Which of an endpoint's subjects are for training, validation and testing."""

    protocol: Literal["paper", "brainmarks"] = Field(
        default="paper",
        description="`paper`: 60, 20 and 20 % to train, validate and test; penalties and epochs are chosen on the "
        "validation subjects. `brainmarks`: 70, 15 and 15 %, 100 random splits; the penalty of what is not trained in "
        "epochs is chosen by balanced accuracy over 5 inner divisions of train and validation subjects, and the model "
        "fitted again to all of these; balanced accuracy and macro F1 come first.",
    )
    scheme: Scheme = Field(
        default="random",
        description="`random`: by subject, balanced over classes and the `stratify` columns. "
        "`leave-one-site-out`: every split tests the subjects of one site. `file`: as a file states.",
    )
    finetune_seeds: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Number of splits, the first ones, on which methods trained in epochs are scored "
        "(`finetune` and the attentive probes). When null, 3, the paper's number, or every site.",
    )
    file: UserPath | None = Field(
        default=None,
        description="Your own splits (scheme `file`): a CSV or TSV with a column of ids and one per split, or Brainmarks' "
        "lists (columns `sub` and `split`). Cells are train, val or validation, test, or empty for subjects who "
        "take no part.",
    )
    site: str | None = Field(
        default=None,
        description="Column of the sites (scheme `leave-one-site-out`); the first of `stratify` when null.",
    )

    @model_validator(mode="after")
    def _keys_fit_the_scheme(self) -> SplitsSection:
        if (self.file is not None) != (self.scheme == "file"):
            raise ConfigError("`file` and `scheme: file` belong together: write both, or neither")
        if self.site is not None and self.scheme != "leave-one-site-out":
            raise ConfigError("`site` is of `scheme: leave-one-site-out`: write that, or remove it")
        return self

    @property
    def rules(self) -> Protocol:
        """What the protocol says."""
        return PROTOCOLS[self.protocol]
