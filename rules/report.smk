# Tables with the paper's values beside ours, and one page to look at.


rule collect_table:
    """One endpoint's table: the paper's published values, the baseline and this run."""
    input:
        lambda wildcards: scores(wildcards.experiment, wildcards.endpoint),
    output:
        md=f"{RESULTS}/tables/{{experiment}}_{{endpoint}}.md",
        csv=report(
            f"{RESULTS}/tables/{{experiment}}_{{endpoint}}.csv",
            caption="../workflow/report/table.rst",
            category="Tables",
            labels={"experiment": "{experiment}", "endpoint": "{endpoint}"},
        ),
        tex=f"{RESULTS}/tables/{{experiment}}_{{endpoint}}.tex",
    log:
        f"{RESULTS}/logs/collect_table/{{experiment}}_{{endpoint}}.log",
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(10),
    params:
        endpoint=lambda wildcards: study.endpoint_file(wildcards.endpoint),
        stem=lambda wildcards, output: Path(output.md).with_suffix(""),
        step=STEPS["collect_table"],
    shell:
        "python -m bhx_prep.report.tables --experiment {wildcards.experiment} --endpoint-name {wildcards.endpoint}"
        " --endpoint {params.endpoint:q} --metrics {input:q} --out-stem {params.stem:q} > {log:q} 2>&1"


rule report_study:
    """The page: cohorts, exclusions and their reasons, quality control, pretraining and evaluation."""
    input:
        indices=expand(rules.publish_index.output, cohort=study.cohorts),
        features=quality_tables,
        harmonics=harmonics,
        weights=trained,
        tables=tables(rules.collect_table.output.csv),
    output:
        report(
            f"{RESULTS}/reports/index.html",
            caption="../workflow/report/page.rst",
            category="Study",
        ),
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
        config=study.config_file(),
        results=lambda wildcards, output: Path(output[0]).parents[1],
        step=STEPS["report_study"],
    shell:
        "python -m bhx_prep.report --config {params.config:q} --results {params.results:q}"
        " --out {output:q} > {log:q} 2>&1"
