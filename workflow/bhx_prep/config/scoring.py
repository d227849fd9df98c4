"""Section `scoring` of an endpoint: how the scores of all its methods are adjusted before they are evaluated."""

from __future__ import annotations

from pydantic import Field

from bhx_model.errors import ConfigError
from bhx_prep.config.section import Section


class ScoringSection(Section):
    """Adjustments of the scores of all methods alike; nothing is learned from test subjects."""

    calibrate: bool = Field(
        default=False,
        description="Of a regression: put predictions on the line that fits the validation subjects best. It leaves a "
        "correlation as it is and corrects errors of scale and offset.",
    )
    class_weights: bool = Field(
        default=False,
        description="Of classes: divide probabilities by the share of each class in training, as if all were as frequent.",
    )
    threshold: bool = Field(
        default=False,
        description="Of two classes: call positive what is above the score with the best balanced accuracy of the "
        "validation subjects, instead of one half.",
    )

    def check(self, kind: str, *, refit: bool) -> None:
        """Refuse what an endpoint of this kind has not.

        Raises
        ------
        ConfigError
            If a switch does not fit.
        """
        if self.calibrate and kind != "regression":
            raise ConfigError(
                "`scoring`: calibrate is of a regression; remove it, or use class_weights or threshold"
            )
        if self.class_weights and kind == "regression":
            raise ConfigError("`scoring`: class_weights is of classes; remove it, or use calibrate")
        if self.threshold and kind != "binary":
            raise ConfigError("`scoring`: threshold is of two classes; remove it")
        if refit and (self.calibrate or self.threshold):
            raise ConfigError(
                "`scoring`: the protocol trains on validation subjects, of whom nothing else can be learned: remove it"
            )

    @property
    def names(self) -> list[str]:
        """The configured adjustments."""
        return [name for name, on in self.model_dump().items() if on]
