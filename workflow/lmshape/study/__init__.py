"""A study: configuration, registry, models, cells, and their costs."""
