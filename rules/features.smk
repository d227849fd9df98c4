# Derivatives to parcel series, T1 volumes and QC rows, one job per batch of subjects.


rule extract_features:
    """Parcel series, T1 volumes and one QC row per scan for a batch of subjects."""
    input:
        preprocessed=batch_preprocessed,
        atlas=rules.fetch_templates.output.atlas,
        strategy=strategy_of,
    output:
        timeseries=f"{RESULTS}/{{cohort}}/features/batch-{{batch}}/timeseries.parquet",
        bold=f"{RESULTS}/{{cohort}}/features/batch-{{batch}}/bold.arrow",
        t1w=f"{RESULTS}/{{cohort}}/features/batch-{{batch}}/t1w.arrow",
        carpets=f"{RESULTS}/{{cohort}}/features/batch-{{batch}}/carpets.parquet",
        qc=f"{RESULTS}/{{cohort}}/features/batch-{{batch}}/qc.parquet",
    log:
        f"{RESULTS}/logs/extract_features/{{cohort}}/batch-{{batch}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/extract_features/{{cohort}}/batch-{{batch}}.tsv"
    priority: training_first
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(60),
    params:
        scans=batch_state,
        subjects=lambda wildcards: str(study.cohorts[wildcards.cohort].subjects_file(wildcards.batch)),
        index=lambda wildcards: study.cohorts[wildcards.cohort].index_file,
        derivatives=lambda wildcards: f"{RESULTS}/{wildcards.cohort}/preproc",
        space=lambda wildcards: study.cohort_section(wildcards.cohort).space,
        features=lambda wildcards: str(study.features_file(wildcards.cohort)),
        tables=lambda wildcards: str(study.tables_file(wildcards.cohort)),
        decisions=lambda wildcards: str(study.cohorts[wildcards.cohort].decisions_file(wildcards.batch)),
        templates=lambda wildcards, input: Path(input.atlas).parent,
        out=lambda wildcards, output: Path(output.qc).parent,
        step=STEPS["extract_features"],
    shell:
        "python -m bhx_prep.features.extract --cohort {wildcards.cohort} --batch {wildcards.batch}"
        " --subjects {params.subjects:q} --index {params.index:q} --derivatives {params.derivatives:q}"
        " --templates {params.templates:q} --features {params.features:q} --tables {params.tables:q}"
        " --space {params.space} --decisions {params.decisions:q}"
        " --out {params.out:q} > {log:q} 2>&1"


rule check_cohort:
    """What only a whole cohort shows: runs that can be used, the order of their ROIs, and series that are there twice."""
    input:
        features=features_of,
        atlas=rules.fetch_templates.output.atlas,
    output:
        f"{RESULTS}/{{cohort}}/check.json",
    log:
        f"{RESULTS}/logs/check_cohort/{{cohort}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/check_cohort/{{cohort}}.tsv"
    priority: training_first
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(60),
    params:
        folder=lambda wildcards: f"{RESULTS}/{wildcards.cohort}/features",
        batches=lambda wildcards: str(study.cohorts[wildcards.cohort].batches_file()),
        templates=lambda wildcards, input: Path(input.atlas).parent,
        order_check=lambda wildcards: study.cohort_section(wildcards.cohort).order_check,
        step=STEPS["check_cohort"],
    shell:
        "python -m bhx_prep.features.check_cohort --cohort {wildcards.cohort} --features {params.folder:q}"
        " --batches {params.batches:q} --templates {params.templates:q} --order-check {params.order_check}"
        " --out {output:q} > {log:q} 2>&1"


rule compute_harmonics:
    """Geometric harmonics of the cortex: parcel means of its Laplace-Beltrami modes."""
    input:
        atlas=rules.fetch_templates.output.atlas,
        surfaces=rules.fetch_templates.output.surfaces,
        cortex=rules.fetch_templates.output.cortex,
    output:
        f"{RESULTS}/templates/harmonics.parquet",
    log:
        f"{RESULTS}/logs/compute_harmonics.log",
    benchmark:
        f"{RESULTS}/benchmarks/compute_harmonics.tsv"
    priority: 30
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(30),
    params:
        templates=lambda wildcards, input: Path(input.atlas).parent,
        modes=study.config.features.harmonics,
        step=STEPS["compute_harmonics"],
    shell:
        "python -m bhx_prep.brain_maps.harmonics --templates {params.templates:q} --modes {params.modes}"
        " --out {output:q} > {log:q} 2>&1"
