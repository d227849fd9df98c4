"""From BIDS to shards: everything of BHX that knows neuroimaging. Never imports torch."""
