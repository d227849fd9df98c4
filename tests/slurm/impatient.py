"""Snakemake as it is, except that it asks for finished jobs every second.

The plugin lets ten seconds more pass after every question that brought no news, up to three minutes, whatever the
profile says. Jobs of days do not mind; a test would spend most of its time in waiting.
"""

import sys

import snakemake.cli
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, value: None)

if __name__ == "__main__":
    sys.argv[0] = "snakemake"
    snakemake.cli.main()
