# What is there: the published index of each cohort, and the templates everything is measured on.


rule publish_index:
    """Index of a cohort, one row per scan, as it was read when the DAG was planned."""
    input:
        lambda wildcards: study.cohorts[wildcards.cohort].index_file,
    output:
        f"{RESULTS}/{{cohort}}/index.parquet",
    log:
        f"{RESULTS}/logs/publish_index/{{cohort}}.log",
    localrule: True
    conda:
        "../envs/prep.yaml"
    shell:
        "cp {input:q} {output:q} 2> {log:q}"


rule fetch_templates:
    """Atlas, surfaces and head template, checked and in one order; here, because nodes may have no network."""
    input:
        study.config.atlas.named_files,
    output:
        # it has the hashes of the atlas's own files; which there are depends on the source and the config
        atlas=f"{RESULTS}/templates/atlas.json",
        surfaces=expand(
            "{results}/templates/{kind}_{side}.surf.gii",
            results=RESULTS,
            kind=["surface", "inflated"],
            side=["left", "right"],
        ),
        cortex=f"{RESULTS}/templates/cortex.npz",
        head=f"{RESULTS}/templates/head_T1w.nii.gz",
        head_mask=f"{RESULTS}/templates/head_mask.nii.gz",
    log:
        f"{RESULTS}/logs/fetch_templates.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch_templates.tsv"
    localrule: True
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(20),
    params:
        out=lambda wildcards, output: Path(output.atlas).parent,
        atlas=str(study.section_file("atlas")),
        # one word more where surfaces are asked for: a parameter more would fetch anew for everybody
        spaces=" ".join(
            [*study.config.volume_spaces, *(["--surfaces"] if study.config.makes_surfaces else [])]
        ),
        step=STEPS["fetch_templates"],
    shell:
        "python -m bhx_prep.atlas.fetch --atlas {params.atlas:q} --spaces {params.spaces} --out {params.out:q} > {log:q} 2>&1"


rule describe_t1w:
    """The T1s that models are trained on: grid, recipe and a coarse template, which exports pass on."""
    input:
        head=rules.fetch_templates.output.head,
        mask=rules.fetch_templates.output.head_mask,
    output:
        f"{RESULTS}/templates/t1w.npz",
    log:
        f"{RESULTS}/logs/describe_t1w.log",
    localrule: True
    conda:
        "../envs/prep.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        t1w=str(study.t1w_file()),
        step=STEPS["describe_t1w"],
    shell:
        "python -m bhx_prep.features.t1w_space --t1w {params.t1w:q} --head {input.head:q} --mask {input.mask:q}"
        " --out {output:q} > {log:q} 2>&1"
