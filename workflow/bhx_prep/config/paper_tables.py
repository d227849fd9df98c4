"""Reserved names of the tables of a whole study, which no endpoint may have."""

from __future__ import annotations

#: The paper's tables, and its endpoints in them.
PAPER_TABLES = {"table1": ("ABIDE-I", "ABIDE-II", "ADHD-200"), "table2": ("PPMI", "ADNI", "HCP-A")}
#: Experiments side by side.
ABLATIONS = "ablations"
