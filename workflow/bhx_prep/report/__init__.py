"""One page to look at: who came in, who was left out and why, quality, what was learnt, and how it was made.

`collect` reads the results, `cortex` and `bhx_prep.report.figures` draw, `page` puts it together. The page is one file that
needs no network and names no person.
"""
