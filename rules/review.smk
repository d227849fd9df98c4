# Scans to look at: pictures of each batch, and the numbers and the page of each cohort.
REVIEW = f"{RESULTS}/{{cohort}}/qc"


rule draw_scans:
    """Pictures of the scans of a batch: brain mask, normalisation, coregistration, carpet; and the numbers beside them."""
    input:
        features=rules.extract_features.output,
        head=rules.fetch_templates.output.head,
        head_mask=rules.fetch_templates.output.head_mask,
    output:
        numbers=f"{REVIEW}/batch-{{batch}}.parquet",
        pictures=f"{REVIEW}/batch-{{batch}}.js",
        thumbnails=f"{REVIEW}/batch-{{batch}}.small.js",
    log:
        f"{RESULTS}/logs/draw_scans/{{cohort}}/batch-{{batch}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_scans/{{cohort}}/batch-{{batch}}.tsv"
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        subjects=lambda wildcards: str(study.cohorts[wildcards.cohort].subjects_file(wildcards.batch)),
        index=lambda wildcards: study.cohorts[wildcards.cohort].index_file,
        derivatives=lambda wildcards: f"{RESULTS}/{wildcards.cohort}/preproc",
        space=lambda wildcards: study.cohort_section(wildcards.cohort).space,
        t1w_mm=study.config.features.t1w_resolution_mm,
        features=lambda wildcards, input: Path(input.features[0]).parent,
        templates=lambda wildcards, input: Path(input.head).parent,
        out=lambda wildcards, output: Path(output.pictures).with_suffix(""),
        step=STEPS["draw_scans"],
    shell:
        "python -m bhx_prep.review.draw --cohort {wildcards.cohort} --subjects {params.subjects:q}"
        " --index {params.index:q} --derivatives {params.derivatives:q} --space {params.space}"
        " --t1w-mm {params.t1w_mm} --features {params.features:q} --templates {params.templates:q}"
        " --out {params.out:q} > {log:q} 2>&1"


rule collect_quality:
    """Numbers of all scans of a cohort, the page to look at them and decide, and how many were decided on."""
    input:
        features=features_of,
        pictures=drawn_batches,
    output:
        table=f"{RESULTS}/{{cohort}}/qc.parquet",
        page=f"{REVIEW}/index.html",
        counts=f"{REVIEW}/counts.json",
    log:
        f"{RESULTS}/logs/collect_quality/{{cohort}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/collect_quality/{{cohort}}.tsv"
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        index=lambda wildcards: study.cohorts[wildcards.cohort].index_file,
        batches=lambda wildcards: str(study.cohorts[wildcards.cohort].batches_file()),
        decisions=lambda wildcards: str(study.cohorts[wildcards.cohort].all_decisions_file()),
        features=lambda wildcards: f"{RESULTS}/{wildcards.cohort}/features",
        reports=derivatives_of,
        out=lambda wildcards: f"{RESULTS}/{wildcards.cohort}",
        step=STEPS["collect_quality"],
    shell:
        "python -m bhx_prep.review.collect --cohort {wildcards.cohort} --index {params.index:q}"
        " --features {params.features:q} --batches {params.batches:q} --decisions {params.decisions:q}"
        " --reports {params.reports:q} --out {params.out:q} > {log:q} 2>&1"
