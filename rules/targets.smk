# What can be asked for: a stage of all cohorts, or one cohort up to its shards.
ALL_TABLES = tables(rules.collect_table.output, rules.collect_study_table.output)


rule ingest:
    """The index of every cohort."""
    input:
        expand(rules.publish_index.output, cohort=study.cohorts),


rule preproc:
    """Derivatives of every cohort that comes as raw BIDS."""
    input:
        lambda wildcards: [
            status
            for name, cohort in study.cohorts.items()
            for status in expand(
                rules.run_embedded.output.status,
                cohort=name,
                subject=cohort.to_preprocess(),
            )
        ],


rule features:
    """Series, volumes and QC rows of every cohort, and the harmonics."""
    input:
        quality_tables,
        harmonics,


rule qc:
    """Pages of every cohort to look at its scans."""
    input:
        expand(rules.collect_quality.output.page, cohort=study.cohorts),


rule shards:
    """Shards of every cohort."""
    input:
        expand(rules.index_shards.output, cohort=study.cohorts),


rule pretrain:
    """Trained weights of every experiment."""
    input:
        trained,
        expand(rules.export_weights.output, experiment=study.experiments("function")),


rule evaluate:
    """Scores of every endpoint, method and seed."""
    input:
        lambda wildcards: [file for endpoint in study.config.endpoints for file in baseline_scores(endpoint)],
        lambda wildcards: [
            file
            for experiment, endpoint in study.tables()
            for file in model_scores(experiment, endpoint, study.methods(experiment, endpoint))
        ],


rule tables:
    """Every table."""
    input:
        ALL_TABLES,


rule report:
    """The page."""
    input:
        rules.report_study.output,


for name in study.cohorts:

    rule:
        name:
            f"cohort_{name}"
        input:
            expand(rules.publish_index.output, cohort=name),
            expand(rules.index_shards.output, cohort=name),
            expand(rules.collect_quality.output.page, cohort=name),
        localrule: True
