"""Versions of the steps: the only way in which a change of code makes a rule run again.

The key is the name of a rule, which carries its number in ``params``. Raise it when, and only when, the rule's output
changes for equal inputs, and add a line with the reason.
"""

STEPS = {
    "fetch_templates": 3,  # what the order of series is compared with
    "run_embedded": 6,  # a head with missing slices, or without a part of the frontal lobe, is excluded
    "run_fmriprep": 2,  # T1w of the model's resolution; what the index excludes is not shown
    "extract_features": 8,  # as run_embedded
    "check_cohort": 2,  # pairs of runs of one scan that was denoised in two ways, and of T1w images, are listed too
    "draw_scans": 1,  # first version
    "collect_quality": 1,  # first version
    "pack_shards": 4,  # lists hold the hash of every scan
    "index_shards": 2,  # contract 4
    "compute_harmonics": 2,  # no mode of a repeated eigenvalue is missed; modes differ by 1e-9
    "compute_gradients": 2,  # the number of subjects is called n_subjects
    "fit_normaliser": 2,  # the number of subjects is called n_subjects
    "collect_rois": 1,  # first version
    "split_pretraining": 2,  # says as hashes who is trained on; leaves out who is tested where that is asked for
    "fetch_weights": 1,  # first version
    "fetch_rois": 1,  # first version
    "train_encoder": 7,  # function: connectivity code, its prediction and whitened patches; `tiny` lets its target move
    "train_fusion": 7,  # hub tokens start from tokens of their own places
    "embed_tokens": 3,  # the mean of a run is taken off first: small units lose no digits
    "read_function_tokens": 1,  # first version
    "read_structure_tokens": 1,  # first version
    "split_endpoint": 5,  # columns of a file that are called by seeds are these; who is in two tested cohorts counts once
    "check_overlap": 1,  # first version
    "evaluate_model": 6,  # predictions that are nearly the same for everybody are not stretched by `calibrate`
    "compute_connectivity": 1,  # first version
    "collect_covariates": 1,  # first version
    "collect_volumes": 1,  # first version
    "evaluate_network": 2,  # as evaluate_model
    "evaluate_baseline": 5,  # as evaluate_model
    "describe_t1w": 1,  # first version
    "export_weights": 6,  # the card counts the scans that are excluded, by limits and by people
    "embed_cohort": 1,  # first version
    "collect_table": 7,  # within sites of few test people, intervals of AUROC and r are wider
    "collect_study_table": 1,  # first version
    "report_study": 9,  # pictures, scatters and reasons of large studies are drawn and listed in part
    "describe_connectivity": 1,  # first version
    "inspect_endpoint": 1,  # first version
    "inspect_structure": 1,  # first version
}
