# What rules ask the study: files, folders and settings as functions of wildcards.


def growing(amount):
    """Memory (MB) or time (minutes) of a job, more with every attempt: a profile's `retries` correct a guess too low."""
    return lambda wildcards, attempt: amount * attempt


def cohorts_of(backend):
    """Pattern of the cohorts that a backend preprocesses; one that matches nothing where there are none."""
    if PREPROC_BACKEND != backend:
        return "(?!)"
    return "|".join([n for n, c in study.config.cohorts.items() if c.input == "bids"]) or "(?!)"


def strategy_of(wildcards):
    """A cohort's denoising strategy if it is a file of the user's: ours change with the version of the step."""
    name = study.features(wildcards.cohort).strategy
    return name if name.endswith((".yaml", ".yml")) else []


def raw_state(wildcards):
    """State of the files that a subject's preprocessing reads, and what the index decided of them."""
    cohort = study.cohorts[wildcards.cohort]
    subject = wildcards.subject
    return cohort.state([subject]) + cohort.metadata([subject]) + cohort.field_map_state(subject)


def kept_scans(wildcards):
    """Argument that names the scans of a subject that are kept, whatever limits of the preprocessing they fail."""
    status = Path(f"{RESULTS}/{wildcards.cohort}/preproc/sub-{wildcards.subject}_status.json")
    names = study.cohorts[wildcards.cohort].kept(wildcards.subject, status)
    return shlex.join(["--keep", *names]) if names else ""


def dataset_root(wildcards):
    """Root of the BIDS dataset that a subject is in: a cohort of many sites has one for each."""
    cohort = study.cohorts[wildcards.cohort]
    return cohort.dataset(wildcards.subject) if cohort.cohort.layout else cohort.cohort.root


def batch_preprocessed(wildcards):
    """Status files of a batch's preprocessing, where we did it."""
    subjects = study.cohorts[wildcards.cohort].to_preprocess(wildcards.batch)
    return expand(rules.run_embedded.output.status, cohort=wildcards.cohort, subject=subjects)


def batch_state(wildcards):
    """State of what a batch reads: rows of the index, and the files of derivatives or tables that are an input."""
    cohort = study.cohorts[wildcards.cohort]
    subjects = cohort.subjects(wildcards.batch)
    return cohort.metadata(subjects) + (cohort.state(subjects) if cohort.cohort.input != "bids" else "")


def quality_tables(wildcards):
    """QC tables of all batches of all cohorts: they come last of a batch's features."""
    return [
        file
        for name, cohort in study.cohorts.items()
        for file in expand(rules.extract_features.output.qc, cohort=name, batch=cohort.batches())
    ]


def features_of(wildcards):
    """Series and QC tables of all batches of a cohort."""
    batches, made = study.cohorts[wildcards.cohort].batches(), rules.extract_features.output
    return expand([made.timeseries, made.qc], cohort=wildcards.cohort, batch=batches)


def drawn_batches(wildcards):
    """Pictures of all batches of a cohort; of tables of series there is nothing to draw."""
    cohort = study.cohorts[wildcards.cohort]
    batches = [] if cohort.cohort.input == "timeseries" else cohort.batches()
    return expand(rules.draw_scans.output.pictures, cohort=wildcards.cohort, batch=batches)


def derivatives_of(wildcards):
    """Folder of a cohort's derivatives, in which fMRIPrep's pages are."""
    section = study.cohort_section(wildcards.cohort)
    return f"{RESULTS}/{wildcards.cohort}/preproc" if section.input == "bids" else str(section.root)


def shards_of(wildcards):
    """All shards of a cohort with their lists."""
    batches = study.cohorts[wildcards.cohort].batches()
    return expand(rules.pack_shards.output, cohort=wildcards.cohort, batch=batches)


def harmonics(wildcards):
    """The table of harmonics, where the study has any."""
    return rules.compute_harmonics.output if study.config.features.harmonics != "none" else []


def rois_of(wildcards):
    """What describes the ROIs: the table of harmonics, or the atlas where there are none."""
    return harmonics(wildcards) or rules.fetch_templates.output.atlas


def trained(wildcards):
    """Weights of every stage that an experiment trains; those that experiments share stand there once."""
    found = [
        weights(experiment, stage)
        for experiment, section in study.config.experiments.items()
        for stage in section.stages
    ]
    return list(dict.fromkeys(found))


def weights(experiment, stage):
    """Weights of a stage of an experiment."""
    return str(study.trainings.stage_folder(experiment, stage) / "model.safetensors")


def users(wildcards):
    """Experiments that use what a job makes; the first one's settings are its settings, for they agree."""
    trainset, names = wildcards.get("trainset"), study.trainings
    if trainset is None:
        return [wildcards.experiment]
    if "pair" in wildcards.keys():
        return names.pair_users(trainset, wildcards.pair)
    recipe = wildcards.get("recipe")
    return names.users(trainset, None if recipe is None else wildcards.get("stage", "function"), recipe)


def section(wildcards):
    """Section of the first experiment that uses what a job makes."""
    return study.experiment(users(wildcards)[0])


def weights_of(stage):
    """Weights of a stage of the experiment that a job is for."""
    return lambda wildcards: weights(users(wildcards)[0], stage)


def rois_of_series(wildcards):
    """Per-ROI metadata for an encoder of series; that of T1 volumes reads none, and its cohorts need no BOLD run."""
    return (
        []
        if wildcards.stage == "structure"
        else expand(rules.collect_rois.output, trainset=wildcards.trainset)
    )


def rois_file(wildcards):
    """Per-ROI metadata of the experiment that a job is for."""
    return str(study.trainings.rois(users(wildcards)[0]))


def split_file(wildcards):
    """Subjects that the experiment that a job is for is trained on; of weights that are given, the card that may name them."""
    name = users(wildcards)[0]
    if study.experiment(name).weights is not None:
        return str(study.trainings.stage_folder(name, study.experiment(name).stages[-1]) / "run.json")
    return str(study.trainings.subjects_folder(name) / "pretrain.json")


def given_files(wildcards):
    """Files of a stage that was trained outside the study."""
    stage = given_weights.find(section(wildcards).weights)[wildcards.stage]
    return [str(stage.weights), str(stage.about)]


def given_rois(wildcards):
    """ROI metadata of weights that were trained outside the study; the job reports if there are none."""
    found = given_weights.rois(section(wildcards).weights)
    return [] if found is None else str(found)


def started_from(wildcards):
    """Folders of weights that the trainings of an experiment start from, by stage."""
    return {stage: str(folder) for stage, folder in section(wildcards).init_from.items()}


def start_files(wildcards):
    """Files of the weights that a training starts from; the stage is fusion where no wildcard says otherwise."""
    stage, folders = wildcards.get("stage", "fusion"), started_from(wildcards)
    if stage not in folders:
        return []
    found = given_weights.find(Path(folders[stage]))[stage]
    return [str(found.weights), str(found.about)]


def start_option(wildcards):
    """Argument that names the folder of these weights."""
    folder = started_from(wildcards).get(wildcards.get("stage", "fusion"))
    return "" if folder is None else f"--init-from {shlex.quote(folder)}"


def stages_to_export(wildcards):
    """Weights that an export needs besides those of the function stage."""
    if "fusion" not in study.experiment(wildcards.experiment).stages:
        return {}
    return {stage: weights(wildcards.experiment, stage) for stage in ("structure", "fusion")}


def training_first(wildcards):
    """Priority of a cohort's jobs: what trainings wait for comes before what evaluation alone reads."""
    waited_for = any(
        wildcards.cohort in experiment.cohorts for experiment in study.config.experiments.values()
    )
    return 30 if waited_for else 0


def pretraining_shards(wildcards):
    """Indices of the cohorts an experiment trains on."""
    return expand(rules.index_shards.output, cohort=section(wildcards).cohorts)


def fusion_inputs(wildcards):
    """What the fusion reads besides the shards: cached tokens, or the encoders where it computes them itself."""
    name = wildcards.experiment
    if study.experiment(name).fusion_is_online:
        return [weights(name, stage) for stage in ("structure", "function")]
    return [str(study.trainings.tokens(name, cohort)) for cohort in study.experiment(name).cohorts]


def fusion_sources(wildcards, input):
    """Arguments that name them."""
    if study.experiment(wildcards.experiment).fusion_is_online:
        structure, function = (str(Path(source).parent) for source in input.sources)
        return shlex.join(["--structure", structure, "--function", function])
    return shlex.join(["--tokens", *input.sources])


def overrides(wildcards):
    """Changes to a stage's preset, as JSON; the stage is fusion where no wildcard says otherwise."""
    stage = wildcards.get("stage", "fusion")
    return json.dumps(study.overrides(users(wildcards)[0], stage), sort_keys=True)


def gpus(wildcards):
    """GPUs of a training job: the most that any of the experiments has that use what it makes."""
    return max(study.experiment(name).gpus for name in users(wildcards))


def jobs_on_gpus(dag):
    """Jobs of a plan that could use GPUs, with what they ask for."""
    return [
        planned_gpus.PlannedJob(
            job.rule.name,
            users(job.wildcards)[0],
            section(job.wildcards).preset,
            job.resources.seen_gpus,
            job.resources.get("slurm_partition"),
            job.resources.get("nodes"),
        )
        for job in dag.needrun_jobs()
        if job.rule.name in (*planned_gpus.RULES, *planned_gpus.TRAINING)
    ]


def endpoints_to_split(dag):
    """Endpoints whose subjects a plan splits."""
    found = (job.wildcards.endpoint for job in dag.needrun_jobs() if job.rule.name == "split_endpoint")
    return sorted(set(found))


def training_threads(wildcards):
    """CPU threads of a training job: a few per GPU, or one, so that CPU runs give the same bits everywhere."""
    return 8 * gpus(wildcards) or 1


def training_memory(wildcards, threads, attempt):
    """Memory (MB) of a training job; a little more with every attempt, since most attempts only go on in time."""
    return 1000 * threads * (3 + attempt)


def embedding_memory(wildcards, attempt):
    """Memory (MB) of a job that embeds: for both encoders and what is read and written meanwhile, per process."""
    return 8000 * attempt * max(1, gpus(wildcards))


def launcher(wildcards):
    """How to start a job: a process per GPU where there are several, on one node or many."""
    n = gpus(wildcards)
    return f"python -m bhx_model.training.launch --processes {n}" if n > 1 else "python"


def planted(wildcards):
    """Argument that names what is planted in the subjects of a table, where that is known."""
    file = study.planted_file(study.endpoint_of_table(wildcards.table))
    return shlex.join(["--planted", str(file)]) if file else ""


def finetuning(wildcards):
    """Changes to the settings of a method that is trained, as JSON; the linear probes have none."""
    changes = study.endpoint(wildcards.endpoint).finetune if METHODS[wildcards.method].has_epochs else {}
    return json.dumps(changes, sort_keys=True)


def method_inputs(wildcards):
    """What a method reads: weights of the stage, and tokens of every cohort that the endpoint is about."""
    name, made = wildcards.experiment, study.trainings
    stage = METHODS[wildcards.method].stage
    of_stage = {"fusion": made.tokens, "function": made.function_tokens, "structure": made.structure_tokens}
    cohorts = study.endpoint(wildcards.endpoint).cohorts
    return [weights(name, stage), *(str(of_stage[stage](name, cohort)) for cohort in cohorts)]


def method_sources(wildcards, input):
    """Arguments that name them."""
    trained_stage, *tokens = input.sources
    stage = METHODS[wildcards.method].stage
    option = "--tokens" if stage == "fusion" else f"--{stage}-tokens"
    return shlex.join([f"--{stage}", str(Path(trained_stage).parent), option, *tokens])


def overlap_file(wildcards):
    """Which scored subjects are in the pretraining; untrained weights know nobody."""
    if METHODS[wildcards.method].is_untrained:
        return []
    return expand(rules.check_overlap.output, experiment=wildcards.experiment, endpoint=wildcards.endpoint)


def overlap_option(wildcards, input):
    """Argument that names that file."""
    return shlex.join(["--overlap", *input.overlap]) if input.overlap else ""


def method_gpus(wildcards):
    """A GPU for the methods that are trained or read hub tokens, where the experiment has any."""
    method = METHODS[wildcards.method]
    return min(1, gpus(wildcards)) if method.has_epochs or method.stage == "fusion" else 0


def structure_gpus(wildcards):
    """A GPU to read structure tokens with, where the experiments have any."""
    first = study.trainings.users(wildcards.trainset, "structure", wildcards.recipe)[0]
    return min(1, study.experiment(first).gpus)


def endpoint_shards(wildcards):
    """Shards of the cohort that an endpoint predicts, and of those that it is tested on besides."""
    return expand(rules.index_shards.output, cohort=study.endpoint(wildcards.endpoint).cohorts)


def splits_left_out(wildcards):
    """Splits whose test subjects an experiment is not trained on."""
    return [
        f"{RESULTS}/endpoints/{endpoint}/seed-{seed}.json"
        for endpoint, seed in study.splits_left_out(users(wildcards)[0])
    ]


def qc_of(wildcards):
    """QC tables of all batches of a cohort."""
    batches = study.cohorts[wildcards.cohort].batches()
    return expand(rules.extract_features.output.qc, cohort=wildcards.cohort, batch=batches)


def covariate_table(wildcards):
    """The table of phenotypes, where a cohort names columns of it as covariates."""
    return [study.participants(wildcards.cohort)] if study.cohort_section(wildcards.cohort).columns else []


def volume_table(wildcards):
    """The table of regional volumes, where a cohort has them in one; a folder of FreeSurfer's has a file per subject."""
    source = study.cohort_section(wildcards.cohort).regions
    return [source] if source.is_file() else []


def baseline_features(wildcards):
    """What a baseline reads, of every cohort that an endpoint is about."""
    method = METHODS[wildcards.method]
    made = {"covariates": rules.collect_covariates.output, "volumes": rules.collect_volumes.output}
    pattern = made.get(method.reads, rules.compute_connectivity.output)
    return expand(pattern, cohort=study.endpoint(wildcards.endpoint).cohorts, kind=method.array)


def baseline_scores(endpoint):
    """Metrics of the methods that need no experiment, over the seeds of an endpoint."""
    return [
        file
        for method in study.baselines(endpoint)
        for file in expand(
            rules.evaluate_baseline.output.metrics,
            endpoint=endpoint,
            method=method,
            seed=study.seeds(endpoint, method),
        )
    ]


def model_scores(experiment, endpoint, methods):
    """Metrics of an experiment's methods, over the seeds of an endpoint."""
    return [
        file
        for method in methods
        for file in expand(
            rules.evaluate_model.output.metrics,
            experiment=experiment,
            endpoint=endpoint,
            method=method,
            seed=study.seeds(endpoint, method, experiment),
        )
    ]


def scores_of_table(wildcards):
    """Metrics of all rows of a table; those of a table chosen on test have no baseline beside them."""
    endpoint = study.endpoint_of_table(wildcards.table)
    baselines = baseline_scores(endpoint) if wildcards.table == endpoint else []
    return baselines + [
        file
        for experiment, methods in study.rows_of_table(wildcards.table).items()
        for file in model_scores(experiment, endpoint, methods)
    ]


def covariates_of_table(wildcards):
    """Sites and motion of the subjects of a table, where a row of it reads them."""
    endpoint = study.endpoint_of_table(wildcards.table)
    if not any(METHODS[method].reads == "covariates" for method in study.baselines(endpoint)):
        return []
    return expand(rules.collect_covariates.output, cohort=study.endpoint(endpoint).cohorts)


def tables_of_study_table(wildcards):
    """Tables of the endpoints that a table of the whole study is made of."""
    return expand(rules.collect_table.output.csv, table=study.study_tables()[wildcards.study_table])


def tables(of_endpoints, of_study):
    """What names the files of all tables: those of endpoints, and those of the whole study.

    Which tables there are depends on the indices of the cohorts, so it is asked when a plan is made, not while rules
    are read: these have to be readable without any data.
    """

    def files(wildcards):
        whole = expand(of_study, study_table=study.study_tables())
        return expand(of_endpoints, table=study.table_names()) + whole

    return files


def connectivity_predictions(wildcards):
    """Predictions of the linear row of connectivity, of all splits of an endpoint."""
    name = wildcards.endpoint
    return expand(
        rules.evaluate_baseline.output.predictions, endpoint=name, method="fc", seed=study.seeds(name, "fc")
    )


def first_split(wildcards):
    """The split by which a model is looked at: the first that its methods are scored on."""
    name, experiment = wildcards.endpoint, wildcards.experiment
    method = study.methods(experiment, name)[0]
    return expand(rules.split_endpoint.output, endpoint=name, seed=study.seeds(name, method, experiment)[0])


def inspected(wildcards):
    """What is read of an endpoint's subjects: the fusion with cached tokens, or function tokens without a fusion."""
    name, cohort = wildcards.experiment, study.endpoint(wildcards.endpoint).cohort
    if study.inspected_stage(name, wildcards.endpoint) == "fusion":
        return [weights(name, "fusion"), str(study.trainings.tokens(name, cohort))]
    return [str(study.trainings.function_tokens(name, cohort))]


def inspected_sources(wildcards, input):
    """Arguments that name them."""
    if len(input.sources) == 1:
        return shlex.join(["--function-tokens", *input.sources])
    fusion, tokens = input.sources
    return shlex.join(["--fusion", str(Path(fusion).parent), "--tokens", tokens])


def inspections(wildcards):
    """Everything that is looked at for the page."""
    found = [
        file
        for experiment, endpoint in study.inspections()
        for file in expand(rules.inspect_endpoint.output, experiment=experiment, endpoint=endpoint)
    ]
    # of weights that are given it is not known who was held out
    made_here = [name for name in study.experiments("structure") if study.experiment(name).weights is None]
    found += expand(rules.inspect_structure.output, experiment=made_here)
    linear = [name for name in study.config.endpoints if "fc" in study.baselines(name)]
    return found + expand(rules.describe_connectivity.output, endpoint=linear)
