"""From statistics to tidy tables."""
