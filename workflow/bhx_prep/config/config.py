"""Models of ``config.yaml``. They check it, and the defaults, the JSON schema and the reference page come from them.

Physical needs of jobs (memory, time, threads) stand in the rules, names of a site (partition, account) in the
profiles; neither belongs here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from bhx_model import config as model_config
from bhx_model.errors import ConfigError

#: Folder of the denoising strategies that come with BHX.
STRATEGIES = Path(__file__).parents[1] / "features" / "strategies"


def strategy_file(name: str) -> Path:
    """File of a denoising strategy: one of ours by its name, or a YAML file by its path.

    Raises
    ------
    ValueError
        If there is no such file.
    """
    own = not name.endswith((".yaml", ".yml"))
    path = STRATEGIES / f"{name.replace('+', '-')}.yaml" if own else Path(name)
    if not path.is_file():
        known = sorted(file.stem for file in STRATEGIES.glob("*.yaml"))
        there = _nearest(name, known) if own else "; is its path right?"
        raise ConfigError(f"no denoising strategy {name!r}{there}")
    return path


def _known_strategy(name: str) -> str:
    strategy_file(name)
    return name


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+]+$")]
StrategyName = Annotated[str, AfterValidator(_known_strategy)]
Stage = Literal["structure", "function", "fusion"]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Cohort(Section):
    """One study, in one of three forms."""

    input: Literal["bids", "fmriprep", "timeseries"] = Field(
        description="Where the data stand: `bids` (raw), `fmriprep` (its derivatives) or `timeseries` (ROI x time tables)."
    )
    root: Path = Field(
        description="Folder of the cohort: raw BIDS, derivatives or tables. Only read, never written."
    )
    tasks: tuple[Label, ...] = Field(default=("rest",), description="fMRI tasks to use.")
    subjects: tuple[Label, ...] | None = Field(
        default=None, description="Only these people (labels without `sub-`); all when null."
    )
    participants: Path | None = Field(
        default=None,
        description="Table of phenotypes; `participants.tsv` in the root when null. Never enters a shard.",
    )
    space: Literal["MNI152NLin2009cAsym", "MNI152NLin6Asym", "fsLR", "fsaverage5"] = Field(
        default="MNI152NLin2009cAsym",
        description="Which of fMRIPrep's BOLD outputs to parcellate (`input: fmriprep`).",
    )
    series: str = Field(
        default="sub-{subject}/**/*_timeseries.*",
        description="Where a person's tables stand below the root (`input: timeseries`); `{subject}` is the label.",
    )
    tr_s: float | None = Field(
        default=None, gt=0.1, lt=20, description="Repetition time (s) for data whose files do not tell it."
    )
    strategy: StrategyName | None = Field(
        default=None,
        description="Denoising of this cohort where it is not `features.strategy`, e.g. `none` for denoised data.",
    )
    synthetic: bool = Field(
        default=False, description="Data were made, not measured: every result then says so."
    )
    terms: str | None = Field(
        default=None,
        description="Licence or data use agreement, for the model card; `License` of the root's "
        "`dataset_description.json` when null.",
    )

    @property
    def phenotypes(self) -> Path:
        """The table of phenotypes, whether it is there or not."""
        return self.participants or self.root / "participants.tsv"


class Preproc(Section):
    """From raw BIDS to derivatives (`input: bids` only), one job per person."""

    backend: Literal["embedded", "fmriprep-docker", "fmriprep-apptainer"] = Field(
        default="embedded",
        description="`embedded`: a short nipype workflow on ANTs, no container and no substitute for fMRIPrep; "
        "`fmriprep-docker` and `fmriprep-apptainer`: fMRIPrep itself.",
    )
    image: str = Field(
        default="nipreps/fmriprep:25.2.7", description="fMRIPrep's container; pin it by digest for a study."
    )
    fs_license: Path | None = Field(
        default=None, description="Your FreeSurfer licence file; fMRIPrep asks for it."
    )
    output_spaces: tuple[str, ...] = Field(
        default=("MNI152NLin2009cAsym:res-2",), description="fMRIPrep's `--output-spaces`."
    )
    fmriprep_args: tuple[str, ...] = Field(
        default=(), description="More arguments for fMRIPrep, as they are."
    )
    templateflow_home: Path | None = Field(
        default=None, description="A filled TemplateFlow folder, so that jobs need no network."
    )
    on_failure: Literal["exclude", "stop"] = Field(
        default="exclude",
        description="A person whose preprocessing fails becomes a row with a reason, or stops the run.",
    )
    embedded_resolution_mm: float = Field(
        default=2.0, ge=1, le=4, description="Grid (mm) of the embedded workflow's standard-space images."
    )


#: Regions of Tian's subcortex (2020, 3 T) by its scale.
TIAN_REGIONS = {"S1": 16, "S2": 32, "S3": 50, "S4": 54}


class Atlas(Section):
    """The parcellation: Schaefer 2018, by size and network order, with or without Tian's subcortex."""

    parcels: Literal[100, 200, 300, 400, 500, 600, 700, 800, 900, 1000] = Field(
        default=400, description="Number of cortical parcels."
    )
    networks: Literal[7, 17] = Field(default=17, description="Order of the parcels: by 7 or by 17 networks.")
    subcortex: Literal["S1", "S2", "S3", "S4"] | None = Field(
        default=None, description="Tian's subcortex before the cortex, by its scale (source `files`)."
    )
    source: Literal["packages", "templateflow", "files"] = Field(
        default="packages",
        description="Where the atlas comes from: installed Python packages (the demo), TemplateFlow, or the files below.",
    )
    volume: Path | None = Field(
        default=None, description="Label image in MNI space; goes before that of the source."
    )
    cifti: Path | None = Field(
        default=None, description="Label file on the 91k grayordinates; goes before that of the source."
    )
    left: Path | None = Field(
        default=None, description="Left label file on the surface; goes before that of the source."
    )
    right: Path | None = Field(
        default=None, description="Right label file on the surface; goes before that of the source."
    )
    names: Path | None = Field(
        default=None, description="Text file with one ROI name per line, or a label list (source `files`)."
    )

    @property
    def label(self) -> str:
        """Name of the atlas in files and shards, e.g. ``Schaefer17n400p``, ``Schaefer7n400pTianS3``."""
        return f"Schaefer{self.networks}n{self.parcels}p" + (
            f"Tian{self.subcortex}" if self.subcortex else ""
        )

    @property
    def n_subcortical(self) -> int:
        """Regions of the subcortex; they come before the cortical parcels."""
        return TIAN_REGIONS[self.subcortex] if self.subcortex else 0

    @model_validator(mode="after")
    def _files_are_named(self) -> Atlas:
        given = [self.volume, self.cifti, self.left, self.right]
        if self.source == "files" and not (any(given) and self.names):
            raise ConfigError(
                "source `files` needs `names` and at least one of `volume`, `cifti`, `left` + `right`"
            )
        if self.source != "files" and self.subcortex:
            raise ConfigError(
                "neither the packages nor TemplateFlow carry Tian's subcortex: set `source` to `files`, `volume` and"
                " `cifti` to the Tian lab's combined files and `names` to their label list"
            )
        if self.source != "files" and self.names:
            raise ConfigError("`names` are those of the source: remove it, or set `source` to `files`")
        return self


class Features(Section):
    """From derivatives to parcel series and T1 volumes."""

    strategy: StrategyName = Field(
        default="paper",
        description="Denoising strategy: a name from `workflow/bhx_prep/features/strategies/` or a YAML file.",
    )
    min_coverage: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of a parcel's voxels with signal below which its series is NaN.",
    )
    min_rois: float = Field(
        default=0.9, ge=0, le=1, description="Share of parcels with coverage that a run needs."
    )
    max_mean_fd_mm: float = Field(
        default=0.5, gt=0, description="Mean framewise displacement (mm) above which a run is left out."
    )
    min_seconds: float = Field(
        default=100.0, gt=0, description="Shortest run (s), after dropped and censored frames."
    )
    t1w_resolution_mm: float = Field(
        default=1.0, gt=0, description="Voxel size (mm) of the model's T1 grid. The paper: 1."
    )
    t1w_shape: tuple[int, int, int] = Field(
        default=(160, 192, 160),
        description="Voxels of the model's T1 grid, a crop of the MNI grid. The paper: 160, 192, 160.",
    )
    harmonics: int = Field(
        default=200, ge=2, le=1000, description="Geometric harmonics per hemisphere. The paper: 200."
    )
    gradients: int = Field(default=30, ge=1, le=100, description="Connectivity gradients. The paper: 30.")


class Experiment(Section):
    """One set of weights: what it is trained on and how."""

    cohorts: tuple[Name, ...] = Field(min_length=1, description="Cohorts of the pretraining.")
    preset: Literal["tiny", "small", "base", "large", "reference"] = Field(
        default="base", description="Size of the model; `base` is the paper's, `tiny` trains on a laptop."
    )
    overrides: dict[Stage, dict[str, Any]] = Field(
        default={}, description="Changes to the preset, per stage, e.g. `{structure: {train.steps: 1000}}`."
    )
    holdout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the people kept out of pretraining, to watch the losses on.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of everything random in this experiment.")
    gpus: int = Field(default=0, ge=0, le=1024, description="GPUs of each training job; 0 trains on the CPU.")

    @property
    def fusion_is_online(self) -> bool:
        """Whether the fusion computes its tokens in every step instead of reading them from the cache."""
        fusion = model_config.load_preset("fusion", self.preset).override(self.overrides.get("fusion", {}))
        return fusion.to_dict()["model"]["inputs"] == "online"


def _as_text(value: Any) -> Any:
    """A code such as 2 as it stands in a table."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Value = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | int)]


class EndpointClass(Section):
    """A class of an endpoint, where its name is not the value that stands in the table."""

    name: str = Field(description="What it is called in tables and figures.")
    values: tuple[Value, ...] = Field(
        min_length=1, description="Values of the column that mean it, e.g. `[1, 2, 3]`."
    )


def _named_by_its_value(given: Any) -> Any:
    value = _as_text(given)
    return {"name": value, "values": (value,)} if isinstance(value, str) else given


Class = Annotated[
    EndpointClass, BeforeValidator(_named_by_its_value, json_schema_input_type=str | int | EndpointClass)
]


class Endpoint(Section):
    """A phenotype to predict."""

    cohort: Name = Field(description="Cohort whose people are predicted.")
    column: str = Field(description="Column of the participants table.")
    kind: Literal["binary", "multiclass", "regression"] = Field(description="What is predicted.")
    classes: tuple[Class, ...] = Field(
        default=(),
        description="Values of the column to tell apart, the negative one first; other rows are left out. "
        "`{name: adhd, values: [1, 2, 3]}` puts several values under one name.",
    )
    stratify: tuple[str, ...] = Field(
        default=(), description="Columns whose mix is kept equal over the splits, e.g. `site`."
    )
    methods: tuple[Literal["probe", "attentive", "finetune"], ...] = Field(
        default=("probe", "finetune"),
        min_length=1,
        description="How the model is used: a linear or an attentive probe of frozen hub tokens, or fine-tuning.",
    )
    finetune: dict[str, Any] = Field(
        default={},
        description="Changes to the published settings of fine-tuning (and of the attentive probe), e.g. `{epochs: 10}`.",
    )
    seeds: int = Field(default=3, ge=1, le=100, description="Number of random splits. The paper: 3.")
    paper: Literal["ABIDE-I", "ABIDE-II", "ADHD-200", "PPMI", "ADNI", "HCP-A", "MACC"] | None = Field(
        default=None,
        description="The paper's endpoint whose published values stand beside ours; null for none.",
    )

    @model_validator(mode="after")
    def _classes_fit_the_kind(self) -> Endpoint:
        n = len(self.classes)
        for what, given in (
            ("the name", [c.name for c in self.classes]),
            ("the value", [v for c in self.classes for v in c.values]),
        ):
            if twice := sorted({g for g in given if given.count(g) > 1}):
                raise ConfigError(f"{what} {twice[0]!r} stands for two `classes`")
        if self.kind == "regression" and n:
            raise ConfigError("a regression has no `classes`")
        if self.kind == "binary" and n != 2:
            raise ConfigError(f"a binary endpoint needs two `classes`, the negative one first; {n} given")
        if self.kind == "multiclass" and n < 3:
            raise ConfigError(f"a multiclass endpoint needs at least three `classes`; {n} given")
        return self


class Config(Section):
    """All of ``config.yaml``."""

    results: Path = Field(default=Path("results"), description="Folder for everything BHX writes.")
    batch_size: int = Field(
        default=50,
        ge=1,
        le=10000,
        description="People per job of the light steps. Frozen when a cohort is first planned.",
    )
    cohorts: dict[Name, Cohort] = Field(min_length=1, description="The cohorts, by name.")
    preproc: Preproc = Field(default=Preproc(), description="From raw BIDS to derivatives.")
    atlas: Atlas = Field(default=Atlas(), description="The parcellation.")
    features: Features = Field(default=Features(), description="Series, volumes and per-ROI metadata.")
    experiments: dict[Name, Experiment] = Field(default={}, description="The trainings, by name.")
    endpoints: dict[Name, Endpoint] = Field(default={}, description="The phenotypes to predict, by name.")

    def section(self, name: str) -> str:
        """One top-level section as canonical JSON: what a job is told, and what makes it run again when it changes."""
        return to_json(getattr(self, name))


def to_json(section: Section, *, without: Collection[str] = ()) -> str:
    """Canonical JSON of a section, but for some of its fields."""
    values = section.model_dump(mode="json", exclude=set(without))
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def load(path: Path) -> Config:
    """Read and check a configuration file.

    Raises
    ------
    ConfigError
        If the file is missing, is no YAML or has mistakes: all of them, one line each.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    return check(raw or {})


def check(raw: Mapping[str, Any]) -> Config:
    """Check a configuration given as plain values.

    Raises
    ------
    ConfigError
        With one line per mistake: dotted path, what is wrong, the nearest right key where one is misspelt.
    """
    try:
        checked, lines = Config.model_validate(raw), []
    except ValidationError as error:
        checked, lines = None, [_sentence(e) for e in error.errors(include_url=False)]
    lines += _disagreements(raw)
    if checked is None or lines:
        count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        raise ConfigError("\n".join([f"{count} in the configuration:", *(f"  {line}" for line in lines)]))
    return checked


def _disagreements(raw: Mapping[str, Any]) -> Iterator[str]:
    """What one part says of another, and of the presets: read from plain values, to be told beside all other mistakes."""
    cohorts = _mapping(_mapping(raw).get("cohorts"))
    for name, experiment in _sections(raw, "experiments"):
        path = f"experiments.{name}"
        trained_on = experiment.get("cohorts")
        for cohort in trained_on if isinstance(trained_on, list | tuple) else ():
            if cohort not in cohorts:
                yield f"{path}.cohorts: no cohort {cohort!r}{_nearest(str(cohort), cohorts)}"
        for stage, changes in _mapping(experiment.get("overrides")).items():
            preset = experiment.get("preset", Experiment.model_fields["preset"].default)
            if stage in model_config.STAGES and preset in model_config.PRESETS:
                yield from _overrides(f"{path}.overrides.{stage}", stage, preset, _mapping(changes))
    for name, endpoint in _sections(raw, "endpoints"):
        path = f"endpoints.{name}"
        cohort = endpoint.get("cohort")
        if isinstance(cohort, str) and cohort not in cohorts:
            yield f"{path}.cohort: no cohort {cohort!r}{_nearest(cohort, cohorts)}"
        changes = _mapping(endpoint.get("finetune"))
        known = [field.name for field in dataclasses.fields(model_config.Finetuning)]
        yield from _unknown(f"{path}.finetune", changes, known)
        taken = {k: v for k, v in changes.items() if k in known}
        yield from _refusal(
            f"{path}.finetune",
            lambda taken=taken: model_config.from_dict(model_config.Finetuning, taken, "finetune"),
        )


def _overrides(path: str, stage: str, preset: str, changes: Mapping[str, Any]) -> Iterator[str]:
    """What a preset does not take of the changes to a stage."""
    base = model_config.load_preset(stage, preset)
    known = [f"{part}.{field}" for part in ("model", "train") for field in base.to_dict()[part]]
    yield from _unknown(path, changes, known)
    yield from _refusal(path, lambda: base.override({k: v for k, v in changes.items() if k in known}))


def _unknown(path: str, changes: Mapping[str, Any], known: list[str]) -> Iterator[str]:
    for key in changes:
        if key not in known:
            yield f"{path}.{key}: no such key{_nearest(str(key), known)}"


def _refusal(path: str, build: Callable[[], object]) -> Iterator[str]:
    try:
        build()
    except ValueError as error:
        within, message = path.rpartition(".")[2] + ".", str(error)
        yield f"{path}.{message.removeprefix(within)}" if message.startswith(within) else f"{path}: {message}"


def _sections(raw: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, section in _mapping(_mapping(raw).get(name)).items():
        yield key, _mapping(section)


def _mapping(value: Any) -> Mapping[str, Any]:
    """A value as a mapping; what is none has been told already, and holds nothing."""
    return value if isinstance(value, Mapping) else {}


def _sentence(error: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        known = _fields_at(error["loc"][:-1])
        return f"{path}: no such key{_nearest(str(error['loc'][-1]), known)}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        message = "is missing"
    elif error["type"] == "string_pattern_mismatch":
        message = (
            f"{error['input']!r} may hold only letters and digits; names are lower-case with a letter first"
        )
    elif "input" in error and isinstance(error["input"], str | int | float | bool):
        message = f"{message} (is {error['input']!r})"
        if error["type"] == "literal_error" and "did you mean" in (
            near := _nearest(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
        ):
            message += near
    return f"{path}: {message}" if path else message


def _nearest(word: str, known: Mapping[str, Any] | list[str]) -> str:
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; there are: {', '.join(known) or 'none'}"


def _fields_at(location: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:  # the name of a cohort, an experiment or an endpoint
            continue
        model = next(iter(_sections_in(field.annotation)), model)
    return list(model.model_fields)


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _sections_in(argument)
