# Structure and function encoders, their tokens, and the fusion into hub tokens. Encoders live below the subjects that they
# are trained on, under names of what decides them: experiments that differ in the fusion only share them.
EXPERIMENT = f"{RESULTS}/experiments/{{experiment}}"
SUBJECTS = f"{RESULTS}/encoders/{{trainset}}"
ENCODER = f"{SUBJECTS}/{{stage}}-{{recipe}}"
# no parameter: who watches a training is no reason to train again
TRACK = f" --track {' '.join(study.config.trackers)}" if study.config.trackers else ""


rule split_pretraining:
    """Subjects an experiment is trained on, and those held out to monitor the losses."""
    input:
        shards=pretraining_shards,
        families=lambda wildcards: study.family_tables(users(wildcards)[0]),
        tested=splits_left_out,
    output:
        f"{SUBJECTS}/pretrain.json",
    log:
        f"{RESULTS}/logs/split_pretraining/{{trainset}}.log",
    priority: 30
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(20),
    params:
        holdout=lambda wildcards: section(wildcards).holdout,
        share=lambda wildcards: section(wildcards).share,
        init=lambda wildcards: json.dumps(started_from(wildcards), sort_keys=True),
        seed=lambda wildcards: section(wildcards).seed,
        families=lambda wildcards: str(study.families_file(users(wildcards)[0])),
        cohorts=lambda wildcards: str(study.people_file(section(wildcards).cohorts)),
        validated=lambda wildcards: " ".join(study.validation_left_out(users(wildcards)[0])),
        step=STEPS["split_pretraining"],
    shell:
        "python -m bhx_prep.evaluation.splits pretrain --shards {input.shards:q} --holdout {params.holdout}"
        " --share {params.share} --init-from {params.init:q} --seed {params.seed}"
        " --families {params.families:q} --cohorts {params.cohorts:q}"
        " --exclude-test-of {input.tested:q} --exclude-validation-of {params.validated} --out {output:q} > {log:q} 2>&1"


rule compute_gradients:
    """Connectivity gradients of the subjects an experiment is trained on."""
    input:
        shards=pretraining_shards,
        split=rules.split_pretraining.output,
    output:
        f"{SUBJECTS}/gradients.parquet",
    log:
        f"{RESULTS}/logs/compute_gradients/{{trainset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/compute_gradients/{{trainset}}.tsv"
    priority: 30
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        components=study.config.features.gradients,
        step=STEPS["compute_gradients"],
    shell:
        "python -m bhx_prep.brain_maps.gradients --shards {input.shards:q} --split {input.split:q}"
        " --components {params.components} --out {output:q} > {log:q} 2>&1"


rule fit_normaliser:
    """Robust centre and scale of each ROI over the subjects an experiment is trained on."""
    input:
        shards=pretraining_shards,
        split=rules.split_pretraining.output,
    output:
        f"{SUBJECTS}/normaliser.parquet",
    log:
        f"{RESULTS}/logs/fit_normaliser/{{trainset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fit_normaliser/{{trainset}}.tsv"
    priority: 30
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(240),
    params:
        step=STEPS["fit_normaliser"],
    shell:
        "python -m bhx_prep.brain_maps.normaliser --shards {input.shards:q} --split {input.split:q}"
        " --out {output:q} > {log:q} 2>&1"


rule collect_rois:
    """Per-ROI metadata that become buffers of the model, joined by name."""
    input:
        described=rois_of,
        gradients=rules.compute_gradients.output,
        normaliser=rules.fit_normaliser.output,
    output:
        f"{SUBJECTS}/rois.npz",
    log:
        f"{RESULTS}/logs/collect_rois/{{trainset}}.log",
    wildcard_constraints:
        trainset=TRAINED,
    priority: 30
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(10),
    params:
        option="--atlas" if study.config.features.harmonics == "none" else "--harmonics",
        step=STEPS["collect_rois"],
    shell:
        "python -m bhx_prep.brain_maps.join {params.option} {input.described:q} --gradients {input.gradients:q}"
        " --normaliser {input.normaliser:q} --out {output:q} > {log:q} 2>&1"


rule train_encoder:
    """Pretraining of one encoder: masked autoencoding of T1 volumes, or JEPA on parcel series."""
    input:
        shards=pretraining_shards,
        split=rules.split_pretraining.output,
        rois=rois_of_series,
        start=start_files,
    output:
        weights=f"{ENCODER}/model.safetensors",
        run=f"{ENCODER}/run.json",
        metrics=f"{ENCODER}/metrics.jsonl",
    log:
        f"{RESULTS}/logs/train_encoder/{{trainset}}_{{stage}}-{{recipe}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_encoder/{{trainset}}_{{stage}}-{{recipe}}.tsv"
    wildcard_constraints:
        trainset=TRAINED,
    # what follows waits for its trainings: they begin before the short jobs
    priority: 40
    conda:
        "../envs/model.yaml"
    threads: training_threads
    resources:
        gpu=gpus,
        seen_gpus=gpus,
        mem_mb=training_memory,
        runtime=1380,
    params:
        launcher=launcher,
        preset=lambda wildcards: section(wildcards).preset,
        seed=lambda wildcards: section(wildcards).seed,
        overrides=overrides,
        rois=lambda wildcards, input: shlex.join(["--rois", *input.rois]) if input.rois else "",
        start=start_option,
        run_root=f"{RESULTS}/runs",
        out=lambda wildcards, output: Path(output.weights).parent,
        step=STEPS["train_encoder"],
    shell:
        "BHX_GPUS={resources.seen_gpus} "
        "{params.launcher} -m bhx_model.train --stage {wildcards.stage} --preset {params.preset}"
        " --set {params.overrides:q} --seed {params.seed} --shards {input.shards:q} --split {input.split:q}"
        " {params.rois} --run-root {params.run_root:q} --out {params.out:q}"
        " {params.start}"
        f"{TRACK}"
        " --step-version {params.step} --cores {threads} --job-minutes {resources.runtime} > {log:q} 2>&1"


rule fetch_weights:
    """Check weights trained outside the study, and put them where those of a training would be."""
    input:
        given=given_files,
        atlas=lambda wildcards: rules.fetch_templates.output.atlas if wildcards.stage == "function" else [],
    output:
        weights=f"{ENCODER}/model.safetensors",
        run=f"{ENCODER}/run.json",
    log:
        f"{RESULTS}/logs/fetch_weights/{{trainset}}_{{stage}}-{{recipe}}.log",
    wildcard_constraints:
        trainset=GIVEN,
        stage="structure|function|fusion",
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        weights=lambda wildcards: section(wildcards).weights,
        atlas=lambda wildcards, input: f"--atlas {shlex.quote(input.atlas)}" if input.atlas else "",
        out=lambda wildcards, output: Path(output.weights).parent,
        step=STEPS["fetch_weights"],
    shell:
        "python -m bhx_model.release.fetch stage --weights {params.weights:q} --stage {wildcards.stage}"
        " {params.atlas} --out {params.out:q} > {log:q} 2>&1"


rule fetch_rois:
    """Per-ROI metadata of weights that were trained outside the study."""
    input:
        given=given_rois,
        atlas=rules.fetch_templates.output.atlas,
    output:
        f"{SUBJECTS}/rois.npz",
    log:
        f"{RESULTS}/logs/fetch_rois/{{trainset}}.log",
    wildcard_constraints:
        trainset=GIVEN,
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(10),
    params:
        weights=lambda wildcards: section(wildcards).weights,
        step=STEPS["fetch_rois"],
    shell:
        "python -m bhx_model.release.fetch rois --weights {params.weights:q} --atlas {input.atlas:q}"
        " --out {output:q} > {log:q} 2>&1"


rule embed_tokens:
    """Tokens of both frozen encoders for every pair of T1 and BOLD run of a cohort."""
    input:
        structure=weights_of("structure"),
        function=weights_of("function"),
        shards=rules.index_shards.output,
        rois=rois_file,
    output:
        f"{SUBJECTS}/{{pair}}/{{cohort}}/index.json",
    log:
        f"{RESULTS}/logs/embed_tokens/{{trainset}}_{{pair}}_{{cohort}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/embed_tokens/{{trainset}}_{{pair}}_{{cohort}}.tsv"
    conda:
        "../envs/model.yaml"
    threads: training_threads
    resources:
        gpu=gpus,
        seen_gpus=gpus,
        mem_mb=embedding_memory,
        runtime=1380,
    params:
        launcher=launcher,
        structure=lambda wildcards, input: Path(input.structure).parent,
        function=lambda wildcards, input: Path(input.function).parent,
        out=lambda wildcards, output: Path(output[0]).parent,
        step=STEPS["embed_tokens"],
    shell:
        "BHX_GPUS={resources.seen_gpus} "
        "{params.launcher} -m bhx_model.training.tokens --structure {params.structure:q} --function {params.function:q}"
        " --shards {input.shards:q} --rois {input.rois:q} --out {params.out:q} --step-version {params.step}"
        " --cores {threads} > {log:q} 2>&1"


rule train_fusion:
    """Pretraining of the fusion: both modalities' tokens through the hub tokens and back."""
    input:
        sources=fusion_inputs,
        shards=pretraining_shards,
        split=split_file,
        rois=rois_file,
        start=start_files,
        recipe=f"{EXPERIMENT}/fusion.json",
    output:
        weights=f"{EXPERIMENT}/fusion/model.safetensors",
        run=f"{EXPERIMENT}/fusion/run.json",
        metrics=f"{EXPERIMENT}/fusion/metrics.jsonl",
    log:
        f"{RESULTS}/logs/train_fusion/{{experiment}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_fusion/{{experiment}}.tsv"
    conda:
        "../envs/model.yaml"
    threads: training_threads
    resources:
        gpu=gpus,
        seen_gpus=gpus,
        mem_mb=training_memory,
        runtime=1380,
    params:
        launcher=launcher,
        preset=lambda wildcards: study.experiment(wildcards.experiment).preset,
        seed=lambda wildcards: study.experiment(wildcards.experiment).seed,
        sources=fusion_sources,
        overrides=overrides,
        start=start_option,
        run_root=f"{RESULTS}/runs",
        out=lambda wildcards, output: Path(output.weights).parent,
        step=STEPS["train_fusion"],
    shell:
        "BHX_GPUS={resources.seen_gpus} "
        "{params.launcher} -m bhx_model.train --stage fusion --preset {params.preset} --set {params.overrides:q}"
        " --seed {params.seed} --shards {input.shards:q} --split {input.split:q} --rois {input.rois:q}"
        " {params.sources} --run-root {params.run_root:q} --out {params.out:q}"
        " {params.start}"
        f"{TRACK}"
        " --step-version {params.step} --cores {threads} --job-minutes {resources.runtime}"
        " > {log:q} 2>&1"


rule export_weights:
    """A folder with everything that is needed to use the weights, and a model card."""
    input:
        unpack(stages_to_export),
        function=weights_of("function"),
        rois=rois_file,
        people=split_file,
        t1w=lambda wildcards: rules.describe_t1w.output if stages_to_export(wildcards) else [],
        quality=lambda wildcards: expand(
            rules.collect_quality.output.counts, cohort=study.experiment(wildcards.experiment).cohorts
        ),
    output:
        directory(f"{EXPERIMENT}/export"),
    log:
        f"{RESULTS}/logs/export_weights/{{experiment}}.log",
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        function=lambda wildcards, input: Path(input.function).parent,
        others=lambda wildcards, input: shlex.join(
            word
            for stage in ("structure", "fusion")
            if stage in input.keys()
            for word in (f"--{stage}", str(Path(input[stage]).parent))
        ),
        terms=lambda wildcards: str(study.terms_file(wildcards.experiment)),
        denoising=lambda wildcards: str(study.denoising_file(wildcards.experiment)),
        t1w=lambda wildcards, input: f"--t1w {shlex.quote(str(input.t1w))}" if input.t1w else "",
        step=STEPS["export_weights"],
    shell:
        "python -m bhx_model.release.export --function {params.function:q} {params.others}"
        " --rois {input.rois:q} --terms {params.terms:q} --people {input.people:q} {params.t1w}"
        " --denoising {params.denoising:q} --quality {input.quality:q} --out {output:q} > {log:q} 2>&1"


rule embed_cohort:
    """Features of every run of a cohort by exported weights, as `bhx embed` makes them; asked for by its file."""
    input:
        weights=rules.export_weights.output,
        shards=rules.index_shards.output,
    output:
        f"{EXPERIMENT}/features/{{cohort}}.parquet",
    log:
        f"{RESULTS}/logs/embed_cohort/{{experiment}}_{{cohort}}.log",
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        step=STEPS["embed_cohort"],
    shell:
        "python -m bhx_model.release.embed_cohort --weights {input.weights:q} --cohort {input.shards:q} --device cpu"
        " --out {output:q} > {log:q} 2>&1"
