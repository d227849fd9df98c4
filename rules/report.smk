# Tables with the paper's values beside ours, and one page to look at.


rule collect_table:
    """One endpoint's table: the paper's published values, the baselines and every experiment's rows."""
    input:
        scores=scores_of_table,
        covariates=covariates_of_table,
    output:
        md=f"{RESULTS}/tables/{{table}}.md",
        csv=report(
            f"{RESULTS}/tables/{{table}}.csv",
            caption="../workflow/report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        tex=f"{RESULTS}/tables/{{table}}.tex",
        json=f"{RESULTS}/tables/{{table}}.json",
    log:
        f"{RESULTS}/logs/collect_table/{{table}}.log",
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(10),
    params:
        endpoint=lambda wildcards: str(study.endpoint_file(study.endpoint_of_table(wildcards.table))),
        name=lambda wildcards: study.endpoint_of_table(wildcards.table),
        planted=planted,
        covariates=lambda wildcards, input: (
            shlex.join(["--covariates", *input.covariates]) if input.covariates else ""
        ),
        stem=lambda wildcards, output: Path(output.md).with_suffix(""),
        step=STEPS["collect_table"],
    shell:
        "python -m bhx_prep.report.tables --endpoint-name {params.name} --endpoint {params.endpoint:q}"
        " --metrics {input.scores:q} {params.planted} {params.covariates} --out-stem {params.stem:q} > {log:q} 2>&1"


rule collect_study_table:
    """Table 1 or 2 of the paper with this run's rows, or the experiments side by side."""
    input:
        tables_of_study_table,
    output:
        md=f"{RESULTS}/tables/{{study_table}}.md",
        csv=report(
            f"{RESULTS}/tables/{{study_table}}.csv",
            caption="../workflow/report/study_table.rst",
            category="Tables",
            labels={"table": "{study_table}"},
        ),
        tex=f"{RESULTS}/tables/{{study_table}}.tex",
    log:
        f"{RESULTS}/logs/collect_study_table/{{study_table}}.log",
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(10),
    params:
        experiments=str(study.experiments_file()),
        stem=lambda wildcards, output: Path(output.md).with_suffix(""),
        step=STEPS["collect_study_table"],
    shell:
        "python -m bhx_prep.report.tables.of_study --tables {input:q} --experiments {params.experiments:q}"
        " --out-stem {params.stem:q} > {log:q} 2>&1"


rule report_study:
    """The page: cohorts, exclusions and their reasons, quality control, pretraining and evaluation. The methods as a text."""
    input:
        indices=expand(rules.publish_index.output, cohort=study.cohorts),
        features=quality_tables,
        harmonics=harmonics,
        weights=trained,
        tables=tables(rules.collect_table.output.csv, rules.collect_study_table.output.csv),
        inside=inspections,
    output:
        page=report(
            f"{RESULTS}/reports/index.html",
            caption="../workflow/report/page.rst",
            category="Study",
        ),
        methods=multiext(f"{RESULTS}/reports/methods", ".md", ".bib"),
    log:
        f"{RESULTS}/logs/report_study.log",
    benchmark:
        f"{RESULTS}/benchmarks/report_study.tsv"
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        config=str(study.config_file()),
        results=lambda wildcards, output: Path(output.page).parents[1],
        step=STEPS["report_study"],
    shell:
        "python -m bhx_prep.report --config {params.config:q} --results {params.results:q}"
        " --out {output.page:q} > {log:q} 2>&1"
