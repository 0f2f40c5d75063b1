"""The metrics, a module a family: definition, range, null, source."""
