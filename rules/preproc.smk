# Raw BIDS to derivatives, one job per subject. Only cohorts with `input: bids` come here.
PREPROC_DIR = f"{RESULTS}/{{cohort}}/preproc"


rule run_embedded:
    """Embedded preprocessing of one subject: nipype on ANTs. No substitute for fMRIPrep."""
    input:
        head=rules.fetch_templates.output.head,
        head_mask=rules.fetch_templates.output.head_mask,
    output:
        status=f"{PREPROC_DIR}/sub-{{subject}}_status.json",
    log:
        f"{RESULTS}/logs/run_embedded/{{cohort}}/sub-{{subject}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/run_embedded/{{cohort}}/sub-{{subject}}.tsv"
    wildcard_constraints:
        cohort=cohorts_of("embedded"),
    # the longest jobs before all others, so that the trainings wait for them as little as they can
    priority: 50
    conda:
        "../envs/ants.yaml"
    threads: 1
    resources:
        mem_mb=growing(6000),
        runtime=growing(120),
    params:
        raw=raw_state,
        root=dataset_root,
        tasks=lambda wildcards: " ".join(study.cohort_section(wildcards.cohort).tasks),
        out=lambda wildcards, output: Path(output.status).parent,
        templates=lambda wildcards, input: Path(input.head).parent,
        scans=lambda wildcards: study.cohorts[wildcards.cohort].index_file.with_suffix(".json"),
        preproc=lambda wildcards: study.preproc_file(wildcards.cohort),
        # the file itself, a path, is not compared: a new place of the licence preprocesses nobody again
        alters=lambda wildcards: study.preproc_alters(wildcards.cohort),
        keep=kept_scans,
        step=STEPS["run_embedded"],
    shell:
        '"$BHX_ANTS_PYTHON" -m bhx_prep.preproc.embedded --subject {wildcards.subject} --cohort {wildcards.cohort}'
        " --root {params.root:q} --tasks {params.tasks} --scans {params.scans:q} --templates {params.templates:q}"
        " --preproc {params.preproc:q} {params.keep} --threads {threads} --out {params.out:q}"
        " --status {output.status:q}"
        ' --work "${{TMPDIR:-/tmp}}" > {log:q} 2>&1'


rule run_fmriprep:
    """fMRIPrep on one subject, in a container."""
    output:
        status=f"{PREPROC_DIR}/sub-{{subject}}_status.json",
    log:
        f"{RESULTS}/logs/run_fmriprep/{{cohort}}/sub-{{subject}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/run_fmriprep/{{cohort}}/sub-{{subject}}.tsv"
    wildcard_constraints:
        cohort=f"{cohorts_of('fmriprep-docker')}|{cohorts_of('fmriprep-apptainer')}",
    priority: 50
    conda:
        "../envs/prep.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 + 8000 * attempt,
        runtime=growing(900),
        attempt=lambda wildcards, attempt: attempt,
    params:
        raw=raw_state,
        root=dataset_root,
        tasks=lambda wildcards: " ".join(study.cohort_section(wildcards.cohort).tasks),
        out=lambda wildcards, output: Path(output.status).parent,
        scans=lambda wildcards: study.cohorts[wildcards.cohort].index_file.with_suffix(".json"),
        preproc=lambda wildcards: study.preproc_file(wildcards.cohort),
        # the file itself, a path, is not compared: a new place of the licence preprocesses nobody again
        alters=lambda wildcards: study.preproc_alters(wildcards.cohort),
        step=STEPS["run_fmriprep"],
    shell:
        "python -m bhx_prep.preproc.fmriprep --subject {wildcards.subject} --cohort {wildcards.cohort}"
        " --root {params.root:q} --tasks {params.tasks} --scans {params.scans:q} --preproc {params.preproc:q}"
        " --threads {threads} --mem-mb {resources.mem_mb} --attempt {resources.attempt}"
        " --out {params.out:q} --status {output.status:q}"
        ' --work "${{TMPDIR:-/tmp}}" > {log:q} 2>&1'
