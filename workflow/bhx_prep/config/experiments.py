"""Section `experiments`: the trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from bhx_model import config as model_config
from bhx_model import given_weights
from bhx_model.command_line import SEEDS
from bhx_model.errors import ConfigError
from bhx_model.evaluation.methods import METHODS
from bhx_prep.config.endpoints import EndpointSection
from bhx_prep.config.section import Name, Section, UserPath, once_each

#: Suffix of tables whose rows were chosen on test subjects, as preset `reference` does.
REFERENCE = "_reference"

#: Settings that say whom and how to train.
OF_TRAINING = ("cohorts", "overrides", "init_from", "holdout", "exclude_test_of", "share")

Stage = Literal["structure", "function", "fusion"]
#: Part of a split whose subjects are scored.
Part = Literal["val", "test"]
if TYPE_CHECKING:
    Preset = str
else:  # the files in bhx_model/presets
    Preset = Literal[model_config.PRESETS]


def _as_set(given: Any) -> Any:
    """Seeds in their order, each once: who leaves out the test subjects of the same splits is trained on the same."""
    if given == "all":
        return given
    seeds = list(given) if isinstance(given, list | tuple) else []
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError("write the seeds of splits as a list, e.g. [0], or all")
    return tuple(sorted(set(seeds)))


#: Seeds of splits, or all of them.
Seeds = Annotated[
    Literal["all"] | tuple[Annotated[int, Field(ge=0)], ...],
    BeforeValidator(_as_set, json_schema_input_type=Literal["all"] | list[Annotated[int, Field(ge=0)]]),
]


class ExperimentSection(Section):
    """One set of weights: what it is trained on and how."""

    cohorts: Annotated[tuple[Name, ...], AfterValidator(once_each)] = Field(
        default=(), description="Cohorts of the pretraining; none if `weights` are given."
    )
    weights: UserPath | None = Field(
        default=None,
        description="Weights instead of a training: an exported folder, an experiment's, or what `bhx_model.compat load` "
        "wrote. The experiment has the stages that the folder contains.",
    )
    preset: Preset = Field(
        default="base", description="Size of the model; `base` is the paper's, `tiny` trains on a laptop."
    )
    stages: Annotated[tuple[Stage, ...], AfterValidator(once_each)] = Field(
        default=("structure", "function", "fusion"),
        min_length=1,
        description="What is trained; `[function]` for cohorts without T1 images. Without the fusion there are no hub "
        "tokens, and endpoints are predicted from function tokens alone.",
    )
    overrides: dict[Stage, dict[str, Any]] = Field(
        default={}, description="Changes to the preset, per stage, e.g. `{structure: {train.steps: 1000}}`."
    )
    init_from: dict[Stage, UserPath] = Field(
        default={},
        description="Weights from which the training of a stage starts, instead of random ones, e.g. `{function: old}`: a "
        "folder as for `weights`, or of a run. Subjects on whom those weights were trained count as trained on here.",
    )
    holdout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the subjects held out of pretraining, on which the losses are monitored.",
    )
    exclude_test_of: dict[Name, Seeds] = Field(
        default={},
        description="Endpoints whose test subjects, with their families, are excluded from pretraining: `{diagnosis: "
        "[0]}` for those of split 0, the only one on which the experiment is then scored; `{diagnosis: "
        "all}` for those of every split.",
    )
    share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the other subjects to train on, for learning curves. It counts subjects, "
        "and a smaller share is contained in a larger one. The holdout does not change.",
    )
    seed: int = Field(default=0, ge=0, lt=SEEDS, description="Seed of everything random in this experiment.")
    gpus: int = Field(default=0, ge=0, le=1024, description="GPUs of each training job; 0 trains on the CPU.")
    gpu_memory_gb: float | None = Field(
        default=None,
        gt=0,
        description="Memory (GB) of each of them, for the estimate of `bhx config check`; when null, that "
        "of this machine's GPUs. A training queries its own GPUs.",
    )

    @model_validator(mode="after")
    def _trained_or_given(self) -> ExperimentSection:
        if self.weights is None:
            if not self.cohorts:
                raise ConfigError("`cohorts`: name those to train on, or give `weights` that are trained")
            return self
        fields = ExperimentSection.model_fields
        if idle := [name for name in OF_TRAINING if getattr(self, name) != fields[name].get_default()]:
            raise ConfigError(
                f"`{idle[0]}` is about a training, and with `weights` there is none: leave one of them out"
            )
        if self.weights.is_dir():  # else a study that is planned says so
            found = tuple(given_weights.find(self.weights))
            if "stages" not in self.model_fields_set:
                object.__setattr__(self, "stages", found)
            elif lacking := [stage for stage in self.stages if stage not in found]:
                msg = f"`stages`: {self.weights} holds {', '.join(found)}, but no {lacking[0]}: leave it out"
                raise ConfigError(msg)
        return self

    @model_validator(mode="after")
    def _stages_belong_together(self) -> ExperimentSection:
        if idle := [stage for stage in self.init_from if stage not in self.stages]:
            raise ConfigError(
                f"`init_from`: the stage {idle[0]} is not trained: add it to `stages`, or leave it out here"
            )
        if "fusion" in self.stages and set(self.stages) != {"structure", "function", "fusion"}:
            raise ConfigError(
                "`stages`: the fusion joins both encoders: list structure and function too, or leave it out"
            )
        return self

    def methods(self, endpoint: EndpointSection) -> list[str]:
        """Methods of an endpoint whose stage this experiment trains."""
        return [name for name in endpoint.methods if METHODS[name].stage in self.stages]

    def chooses_on_test(self, endpoint: EndpointSection, method: str) -> bool:
        """Whether a method's epoch or penalty is chosen on test subjects, which puts its row into a separate table."""
        changes = endpoint.finetune if METHODS[method].has_epochs else {}
        settings = {**model_config.preset_evaluation(self.preset), **changes}
        return settings.get("choose_on") == "test"

    def scored_parts(self, endpoint: EndpointSection) -> tuple[Part, ...]:
        """Parts of an endpoint's splits whose subjects trained weights are scored on.

        ``test``, and ``val`` where a method is chosen on test subjects; none where there are no rows of trained weights.
        """
        trained = [name for name in self.methods(endpoint) if not METHODS[name].is_untrained]
        on_test = {self.chooses_on_test(endpoint, name) for name in trained}
        parts: dict[bool, Part] = {False: "test", True: "val"}
        return tuple(part for chosen, part in parts.items() if chosen in on_test)

    @property
    def fusion_is_online(self) -> bool:
        """Whether the fusion computes its tokens in every step instead of reading them from the cache."""
        fusion = model_config.load_preset("fusion", self.preset).override(self.overrides.get("fusion", {}))
        return fusion.to_dict()["model"]["inputs"] == "online"
