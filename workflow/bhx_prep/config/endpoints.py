"""Section `endpoints`: the phenotypes to predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from bhx_model.errors import ConfigError
from bhx_model.evaluation.methods import BASELINES, METHODS
from bhx_prep.config.scoring import ScoringSection
from bhx_prep.config.section import Name, Section, Value, as_text, once_each
from bhx_prep.config.splits import SplitsSection
from bhx_prep.ingest.cell_values import number_of

if TYPE_CHECKING:
    Method = str
else:  # of the model's evaluation
    Method = Literal[tuple(METHODS)]

#: Characters of the name of a class.
LONGEST_NAME: Final = 80


def _one_line(name: str) -> str:
    """The name of a class, which is printed in cells of tables."""
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ConfigError(f"a class needs a name of 1 to {LONGEST_NAME} characters on one line")
    return name


class EndpointClass(Section):
    """A class of an endpoint whose name differs from its value in the table."""

    name: Annotated[str, AfterValidator(_one_line)] = Field(
        description="What it is called in tables and figures."
    )
    values: tuple[Value, ...] = Field(
        min_length=1, description="Values of the column that mean it, e.g. `[1, 2, 3]`."
    )


def _named_by_its_value(given: Any) -> Any:
    value = as_text(given)
    if not isinstance(value, str | Mapping | EndpointClass):
        raise ConfigError("write a value as the table has it, a date in quotes, or {name: .., values: [..]}")
    return {"name": value, "values": (value,)} if isinstance(value, str) else given


Class = Annotated[
    EndpointClass, BeforeValidator(_named_by_its_value, json_schema_input_type=str | int | EndpointClass)
]


class TestCohort(Section):
    """A cohort that an endpoint is scored on and not trained on, where its table is not coded as the endpoint's own."""

    cohort: Name = Field(description="Its name.")
    column: str | None = Field(default=None, description="Its column; the endpoint's when null.")
    classes: tuple[Class, ...] | None = Field(
        default=None,
        description="Its values of the endpoint's classes, in their order; the endpoint's when null.",
    )


def _named(given: Any) -> Any:
    return {"cohort": given} if isinstance(given, str) else given


OtherCohort = Annotated[TestCohort, BeforeValidator(_named, json_schema_input_type=str | TestCohort)]


class EndpointSection(Section):
    """A phenotype to predict."""

    cohort: Name = Field(description="Cohort whose subjects are predicted.")
    column: str = Field(description="Column of the participants table.")
    kind: Literal["binary", "multiclass", "regression"] = Field(description="What is predicted.")
    classes: tuple[Class, ...] = Field(
        default=(),
        description="Values of the column to tell apart, the negative one first; other rows are excluded. "
        "`{name: adhd, values: [1, 2, 3]}` puts several values under one name.",
    )
    stratify: tuple[str, ...] = Field(
        default=(), description="Columns that are balanced over the splits, e.g. `site`."
    )
    methods: Annotated[tuple[Method, ...], AfterValidator(once_each)] = Field(
        default=(
            "fc",
            "probe",
            "hub_tokens",
            "finetune",
            "function_regions",
            "function_regions_untrained",
            "permuted",
        ),
        min_length=1,
        description="Rows of the table. Without a model: connectivity (`fc`, `fc_partial`, `fc_tangent`, each with a linear "
        "model, and with `_svm` or `_kernel_ridge` behind its name; `fc` is always there), `brainnetcnn`, `brainnettf`, "
        "`volumes`, and floors: `age_sex`, `site`, `motion`, `acquisition`, `permuted` (`fc`, labels permuted). Hub "
        "tokens: a linear probe of their mean (`probe`), of all side by side (`hub_tokens`) or of their `covariance`, an "
        "`attentive` probe, or `finetune` of the fusion. Tokens of one encoder alone: a linear probe of their mean "
        "(`structure`, `function_mean`), of 16 regions or of their covariance, or an attentive probe; `_untrained` reads "
        "untrained weights, the control. An experiment has rows for the methods whose stage it has.",
    )
    finetune: dict[str, Any] = Field(
        default={},
        description="Changes to the published settings of fine-tuning (also of attentive probes and networks), e.g. "
        "`{epochs: 10}`.",
    )
    seeds: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Number of splits, seeds 0, 1, ... When null, 20 (protocol `brainmarks`: 100), every site, or every "
        "split of the file. Methods trained in epochs take the first 3, see `splits.finetune_seeds`.",
    )
    splits: SplitsSection = Field(
        default=SplitsSection(),
        description="Which subjects are for training, validation and testing, and how many splits.",
    )
    scoring: ScoringSection = Field(
        default=ScoringSection(), description="Adjustments of the scores of all methods; none by default."
    )
    test_on: tuple[OtherCohort, ...] = Field(
        default=(),
        description="External validation: the cohort's subjects train and validate, and all subjects of "
        "these cohorts with a label are tested. `{cohort: abide2, column: DX, classes: [..]}` if a table "
        "is coded differently.",
    )
    pretraining_overlap: Literal["refuse", "mark"] = Field(
        default="refuse",
        description="If test subjects, their families or their scans are in the pretraining of the scored weights, or "
        "if this is unknown: `refuse`, or `mark` every such row of the table.",
    )
    paper: Literal["ABIDE-I", "ABIDE-II", "ADHD-200", "PPMI", "ADNI", "HCP-A", "MACC"] | None = Field(
        default=None,
        description="The paper's endpoint whose published values stand beside ours; null for none.",
    )
    paper_beside_synthetic: bool = Field(
        default=False,
        description="Whether published values are also shown beside synthetic subjects, for whom they are no comparison.",
    )

    @property
    def baselines(self) -> list[str]:
        """Methods that need no experiment, in the order of the tables; `fc` is always one of them."""
        return [name for name in BASELINES if name == "fc" or name in self.methods]

    @property
    def values(self) -> tuple[str, ...]:
        """Values of the column that its classes represent; none for a regression."""
        return tuple(value for one in self.classes for value in one.values)

    @property
    def cohorts(self) -> tuple[str, ...]:
        """Its own cohort, and the others on which it is tested."""
        return (self.cohort, *(one.cohort for one in self.test_on))

    def coded_in(self, cohort: str) -> EndpointSection:
        """The endpoint as a cohort's table codes it."""
        for one in self.test_on:
            if one.cohort == cohort:
                coded = {"column": one.column, "classes": one.classes}
                return self.model_copy(
                    update={k: v for k, v in coded.items() if v is not None} | {"cohort": cohort}
                )
        return self

    @model_validator(mode="after")
    def _splits_fit(self) -> EndpointSection:
        self.scoring.check(self.kind, refit=self.splits.rules.refit)
        if self.splits.scheme == "leave-one-site-out" and not (self.splits.site or self.stratify):
            raise ConfigError("`splits`: leave-one-site-out needs the column of sites: name it as `site`")
        if self.splits.protocol == "brainmarks" and self.kind == "regression":
            raise ConfigError("`splits`: the protocol brainmarks is of classes; use `protocol: paper`")
        others = [one.cohort for one in self.test_on]
        once_each((self.cohort, *others))
        if others and self.splits.scheme != "random":
            raise ConfigError(
                "`test_on` tests all subjects of other cohorts: it goes with `scheme: random` only"
            )
        own = [c.name for c in self.classes]
        for one in self.test_on:
            if one.classes is not None and [c.name for c in one.classes] != own:
                raise ConfigError(
                    f"`test_on`: the classes of {one.cohort} must be named {', '.join(own)}, in this order"
                )
        return self

    @model_validator(mode="after")
    def _classes_fit_the_kind(self) -> EndpointSection:
        n = len(self.classes)
        for what, given in (
            ("the name", [c.name for c in self.classes]),
            ("the value", [v for c in self.classes for v in c.values]),
        ):
            if twice := sorted({g for g in given if given.count(g) > 1}):
                raise ConfigError(f"{what} {twice[0]!r} stands for two `classes`: name it once")
        of_number: dict[float, tuple[EndpointClass, str]] = {}
        for one in self.classes:
            for value in one.values:
                if (number := number_of(value)) is None:
                    continue
                first, known = of_number.setdefault(number, (one, value))
                if first is not one:
                    raise ConfigError(
                        f"{known!r} and {value!r} of two `classes` are the same number: name it once"
                    )
        if self.kind == "regression" and n:
            raise ConfigError("a regression has no `classes`: leave them out")
        if self.kind == "binary" and n != 2:
            raise ConfigError(f"a binary endpoint needs two `classes`, the negative one first; {n} given")
        if self.kind == "multiclass" and n < 3:
            raise ConfigError(f"a multiclass endpoint needs at least three `classes`; {n} given")
        return self
