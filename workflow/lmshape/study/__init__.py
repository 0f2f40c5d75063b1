"""What a study asks for: configuration, registry, models, cells, and what they cost."""
