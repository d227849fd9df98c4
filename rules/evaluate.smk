# Phenotypes from hub tokens and function tokens, and from connectivity with a linear model beside them.
ENDPOINT = f"{RESULTS}/endpoints/{{endpoint}}"
BASELINE = f"{ENDPOINT}/{{method}}_seed-{{seed}}"
SCORES = f"{EXPERIMENT}/endpoints/{{endpoint}}/{{method}}_seed-{{seed}}"


rule split_endpoint:
    """Training, validation and test subjects of an endpoint, with their labels."""
    input:
        shards=endpoint_shards,
        participants=lambda wildcards: study.participants(study.endpoint(wildcards.endpoint).cohort),
        others=lambda wildcards: study.tables_of(study.endpoint(wildcards.endpoint).cohorts[1:]),
        lists=lambda wildcards: study.lists_of(wildcards.endpoint),
    output:
        f"{ENDPOINT}/seed-{{seed}}.json",
    log:
        f"{RESULTS}/logs/split_endpoint/{{endpoint}}_seed-{{seed}}.log",
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(20),
    params:
        endpoint=lambda wildcards: str(study.split_file(wildcards.endpoint)),
        table=lambda wildcards: str(study.table_file(study.endpoint(wildcards.endpoint).cohort)),
        modalities=lambda wildcards: " ".join(study.modalities(wildcards.endpoint)),
        cohorts=lambda wildcards: str(study.people_file(study.endpoint(wildcards.endpoint).cohorts)),
        sites=lambda wildcards: str(study.sites_file(wildcards.endpoint)),
        step=STEPS["split_endpoint"],
    shell:
        "python -m bhx_prep.evaluation.splits endpoint --endpoint {params.endpoint:q} --name {wildcards.endpoint}"
        " --seed {wildcards.seed} --participants {input.participants:q} --table {params.table:q}"
        " --shards {input.shards:q} --modalities {params.modalities} --cohorts {params.cohorts:q}"
        " --sites {params.sites:q} --out {output:q} > {log:q} 2>&1"


rule compute_connectivity:
    """Connectivity of every subject of a cohort, of which all baselines of all splits are made."""
    input:
        rules.index_shards.output,
    output:
        f"{RESULTS}/{{cohort}}/connectivity/{{kind}}.npz",
    log:
        f"{RESULTS}/logs/compute_connectivity/{{cohort}}_{{kind}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/compute_connectivity/{{cohort}}_{{kind}}.tsv"
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        step=STEPS["compute_connectivity"],
    shell:
        "python -m bhx_prep.evaluation.baselines.connectivity --kind {wildcards.kind} --shards {input:q}"
        " --out {output:q} > {log:q} 2>&1"


rule collect_covariates:
    """Age, sex and site of a cohort's subjects as far as its table says, how much they moved, and how they were scanned."""
    input:
        shards=rules.index_shards.output,
        index=rules.publish_index.output,
        qc=qc_of,
        participants=covariate_table,
    output:
        f"{RESULTS}/{{cohort}}/covariates.parquet",
    log:
        f"{RESULTS}/logs/collect_covariates/{{cohort}}.log",
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(30),
    params:
        table=lambda wildcards: str(study.table_file(wildcards.cohort)),
        columns=lambda wildcards: str(study.columns_file(wildcards.cohort)),
        participants=lambda wildcards, input: (
            shlex.join(["--participants", *input.participants]) if input.participants else ""
        ),
        step=STEPS["collect_covariates"],
    shell:
        "python -m bhx_prep.evaluation.baselines.covariates --shards {input.shards:q} --index {input.index:q}"
        " --qc {input.qc:q} {params.participants} --table {params.table:q} --columns {params.columns:q}"
        " --out {output:q} > {log:q} 2>&1"


rule collect_volumes:
    """Regional volumes and thickness of a cohort's subjects, as FreeSurfer found them."""
    input:
        shards=rules.index_shards.output,
        table=volume_table,
    output:
        f"{RESULTS}/{{cohort}}/volumes.npz",
    log:
        f"{RESULTS}/logs/collect_volumes/{{cohort}}.log",
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(60),
    params:
        source=lambda wildcards: study.cohort_section(wildcards.cohort).regions,
        table=lambda wildcards: str(study.table_file(wildcards.cohort)),
        step=STEPS["collect_volumes"],
    shell:
        "python -m bhx_prep.evaluation.baselines.volumes --shards {input.shards:q} --source {params.source:q}"
        " --table {params.table:q} --out {output:q} > {log:q} 2>&1"


rule evaluate_baseline:
    """An endpoint without a model of ours: connectivity and a linear model, and what else results are compared with."""
    input:
        labels=rules.split_endpoint.output,
        features=baseline_features,
    output:
        metrics=f"{BASELINE}/metrics.json",
        predictions=f"{BASELINE}/predictions.parquet",
    log:
        f"{RESULTS}/logs/evaluate_baseline/{{endpoint}}_{{method}}_seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_baseline/{{endpoint}}_{{method}}_seed-{{seed}}.tsv"
    wildcard_constraints:
        method="|".join(name for name in BASELINES if name not in NETWORKS),
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        out=lambda wildcards, output: Path(output.metrics).parent,
        step=STEPS["evaluate_baseline"],
    shell:
        "python -m bhx_prep.evaluation.baselines --method {wildcards.method} --labels {input.labels:q}"
        " --features {input.features:q} --out {params.out:q} > {log:q} 2>&1"


rule evaluate_network:
    """An endpoint by a network of others, trained on the connectivity of the training subjects."""
    input:
        labels=rules.split_endpoint.output,
        features=baseline_features,
    output:
        metrics=f"{BASELINE}/metrics.json",
        predictions=f"{BASELINE}/predictions.parquet",
    log:
        f"{RESULTS}/logs/evaluate_network/{{endpoint}}_{{method}}_seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_network/{{endpoint}}_{{method}}_seed-{{seed}}.tsv"
    wildcard_constraints:
        method="|".join(NETWORKS),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=1380,
    params:
        changes=finetuning,
        out=lambda wildcards, output: Path(output.metrics).parent,
        step=STEPS["evaluate_network"],
    shell:
        "python -m bhx_model.evaluation.networks --method {wildcards.method} --labels {input.labels:q}"
        " --features {input.features:q} --seed {wildcards.seed} --set {params.changes:q} --out {params.out:q}"
        " > {log:q} 2>&1"


rule read_function_tokens:
    """Readouts of function tokens for every BOLD run of a cohort, with trained and with untrained weights."""
    input:
        function=f"{SUBJECTS}/function-{{recipe}}/model.safetensors",
        shards=rules.index_shards.output,
    output:
        f"{SUBJECTS}/function-{{recipe}}/function_tokens/{{cohort}}.npz",
    log:
        f"{RESULTS}/logs/read_function_tokens/{{trainset}}_{{recipe}}_{{cohort}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/read_function_tokens/{{trainset}}_{{recipe}}_{{cohort}}.tsv"
    conda:
        "../envs/model.yaml"
    resources:
        gpu=lambda wildcards: min(1, gpus(wildcards)),
        seen_gpus=lambda wildcards: min(1, gpus(wildcards)),
        mem_mb=growing(8000),
        runtime=growing(720),
    params:
        function=lambda wildcards, input: Path(input.function).parent,
        step=STEPS["read_function_tokens"],
    shell:
        "BHX_GPUS={resources.seen_gpus} "
        "python -m bhx_model.evaluation.function_tokens --function {params.function:q} --shards {input.shards:q}"
        " --out {output:q} > {log:q} 2>&1"


rule check_overlap:
    """No test subject, nobody of their family and no scan of theirs is in the pretraining: before anything is trained."""
    input:
        splits=lambda wildcards: expand(
            rules.split_endpoint.output,
            endpoint=wildcards.endpoint,
            seed=study.overlap_seeds(wildcards.experiment, wildcards.endpoint),
        ),
        pretraining=split_file,
    output:
        f"{EXPERIMENT}/endpoints/{{endpoint}}/overlap.json",
    log:
        f"{RESULTS}/logs/check_overlap/{{experiment}}_{{endpoint}}.log",
    priority: 100
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(20),
    params:
        overlap=lambda wildcards: study.endpoint(wildcards.endpoint).pretraining_overlap,
        scored=lambda wildcards: " ".join(study.scored_parts(wildcards.experiment, wildcards.endpoint)),
        step=STEPS["check_overlap"],
    shell:
        "python -m bhx_prep.evaluation.guards --experiment {wildcards.experiment} --splits {input.splits:q}"
        " --pretraining {input.pretraining:q} --overlap {params.overlap} --scored {params.scored}"
        " --out {output:q} > {log:q} 2>&1"


rule read_structure_tokens:
    """Readouts of structure tokens for every T1 of a cohort."""
    input:
        structure=f"{SUBJECTS}/structure-{{recipe}}/model.safetensors",
        shards=rules.index_shards.output,
    output:
        f"{SUBJECTS}/structure-{{recipe}}/structure_tokens/{{cohort}}.npz",
    log:
        f"{RESULTS}/logs/read_structure_tokens/{{trainset}}_{{recipe}}_{{cohort}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/read_structure_tokens/{{trainset}}_{{recipe}}_{{cohort}}.tsv"
    conda:
        "../envs/model.yaml"
    resources:
        gpu=structure_gpus,
        seen_gpus=structure_gpus,
        mem_mb=growing(8000),
        runtime=growing(720),
    params:
        structure=lambda wildcards, input: Path(input.structure).parent,
        step=STEPS["read_structure_tokens"],
    shell:
        "BHX_GPUS={resources.seen_gpus} "
        "python -m bhx_model.evaluation.structure_tokens --structure {params.structure:q} --shards {input.shards:q}"
        " --out {output:q} > {log:q} 2>&1"


rule evaluate_model:
    """An endpoint from the tokens of an encoder or of the fusion: chosen on validation, reported on test."""
    input:
        sources=method_inputs,
        labels=rules.split_endpoint.output,
        overlap=overlap_file,
    output:
        metrics=f"{SCORES}/metrics.json",
        predictions=f"{SCORES}/predictions.parquet",
    log:
        f"{RESULTS}/logs/evaluate_model/{{experiment}}_{{endpoint}}_{{method}}_seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_model/{{experiment}}_{{endpoint}}_{{method}}_seed-{{seed}}.tsv"
    conda:
        "../envs/model.yaml"
    resources:
        gpu=method_gpus,
        seen_gpus=method_gpus,
        mem_mb=growing(4000),
        runtime=growing(720),
    params:
        sources=method_sources,
        preset=lambda wildcards: study.experiment(wildcards.experiment).preset,
        changes=finetuning,
        overlap=overlap_option,
        out=lambda wildcards, output: Path(output.metrics).parent,
        step=STEPS["evaluate_model"],
    shell:
        "BHX_GPUS={resources.seen_gpus} "
        "python -m bhx_model.evaluation --method {wildcards.method} {params.sources} --labels {input.labels:q}"
        " --seed {wildcards.seed} --experiment {wildcards.experiment} --preset {params.preset}"
        " --set {params.changes:q} {params.overlap} --out {params.out:q} > {log:q} 2>&1"


rule describe_connectivity:
    """Which connectivity the linear row of an endpoint reads: the pattern that goes with its decision."""
    input:
        predictions=connectivity_predictions,
        features=lambda wildcards: expand(
            rules.compute_connectivity.output,
            cohort=study.endpoint(wildcards.endpoint).cohort,
            kind=METHODS["fc"].array,
        ),
    output:
        f"{ENDPOINT}/connectivity_pattern.npz",
    log:
        f"{RESULTS}/logs/describe_connectivity/{{endpoint}}.log",
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        step=STEPS["describe_connectivity"],
    shell:
        "python -m bhx_prep.evaluation.connectivity_pattern --predictions {input.predictions:q}"
        " --features {input.features:q} --out {output:q} > {log:q} 2>&1"


rule inspect_endpoint:
    """Attention of hub tokens, saliency of ROIs, and the plane in which an endpoint's subjects differ most."""
    input:
        labels=first_split,
        shards=lambda wildcards: expand(
            rules.index_shards.output, cohort=study.endpoint(wildcards.endpoint).cohort
        ),
        function=weights_of("function"),
        sources=inspected,
    output:
        f"{EXPERIMENT}/inspection/{{endpoint}}.npz",
    log:
        f"{RESULTS}/logs/inspect_endpoint/{{experiment}}_{{endpoint}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/inspect_endpoint/{{experiment}}_{{endpoint}}.tsv"
    conda:
        "../envs/model.yaml"
    resources:
        gpu=lambda wildcards: min(1, gpus(wildcards)),
        seen_gpus=lambda wildcards: min(1, gpus(wildcards)),
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        function=lambda wildcards, input: Path(input.function).parent,
        sources=inspected_sources,
        step=STEPS["inspect_endpoint"],
    shell:
        "BHX_GPUS={resources.seen_gpus} "
        "python -m bhx_model.inspection endpoint --labels {input.labels:q} --function {params.function:q}"
        " --shards {input.shards:q} {params.sources} --out {output:q} > {log:q} 2>&1"


rule inspect_structure:
    """What the structure stage fills into T1 volumes of held-out subjects, as means over subjects."""
    input:
        structure=weights_of("structure"),
        split=split_file,
        shards=pretraining_shards,
    output:
        f"{EXPERIMENT}/reconstructions.npz",
    log:
        f"{RESULTS}/logs/inspect_structure/{{experiment}}.log",
    conda:
        "../envs/model.yaml"
    resources:
        gpu=lambda wildcards: min(1, gpus(wildcards)),
        seen_gpus=lambda wildcards: min(1, gpus(wildcards)),
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        structure=lambda wildcards, input: Path(input.structure).parent,
        step=STEPS["inspect_structure"],
    shell:
        "BHX_GPUS={resources.seen_gpus} "
        "python -m bhx_model.inspection structure --structure {params.structure:q} --split {input.split:q}"
        " --shards {input.shards:q} --out {output:q} > {log:q} 2>&1"
