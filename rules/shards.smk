# Features to WebDataset tars, and the index that training depends on.
SHARDS = f"{RESULTS}/{{cohort}}/shards"


rule pack_shards:
    """BOLD and T1 shards of one batch: the same subjects in the same order."""
    input:
        rules.extract_features.output,
    output:
        bold=f"{SHARDS}/bold-{{batch}}.tar",
        bold_list=f"{SHARDS}/bold-{{batch}}.json",
        t1w=f"{SHARDS}/t1w-{{batch}}.tar",
        t1w_list=f"{SHARDS}/t1w-{{batch}}.json",
    log:
        f"{RESULTS}/logs/pack_shards/{{cohort}}/batch-{{batch}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/pack_shards/{{cohort}}/batch-{{batch}}.tsv"
    priority: training_first
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(20),
    params:
        features=lambda wildcards, input: Path(input[0]).parent,
        out=lambda wildcards, output: Path(output.bold).parent,
        step=STEPS["pack_shards"],
    shell:
        "python -m bhx_prep.shards.command pack --cohort {wildcards.cohort} --batch {wildcards.batch}"
        " --features {params.features:q} --out {params.out:q} > {log:q} 2>&1"


rule index_shards:
    """Hashes of a cohort's shards: the one file that training depends on."""
    input:
        shards=shards_of,
        # a cohort that is refused has no index, hence trains nothing
        check=rules.check_cohort.output,
        atlas=rules.fetch_templates.output.atlas,
    output:
        f"{SHARDS}/index.json",
    log:
        f"{RESULTS}/logs/index_shards/{{cohort}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/index_shards/{{cohort}}.tsv"
    priority: training_first
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(60),
    params:
        folder=lambda wildcards, output: Path(output[0]).parent,
        batches=lambda wildcards: str(study.cohorts[wildcards.cohort].batches_file()),
        step=STEPS["index_shards"],
    shell:
        "python -m bhx_prep.shards.command index --cohort {wildcards.cohort} --shards {params.folder:q}"
        " --batches {params.batches:q} --out {output:q} > {log:q} 2>&1"
