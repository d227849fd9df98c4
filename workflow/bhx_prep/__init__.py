"""From BIDS to shards: the part of BHX that knows neuroimaging. Never imports torch."""

from bhx_model.extras import explain_failed_imports

explain_failed_imports()
