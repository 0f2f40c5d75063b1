"""The metrics: a module a family, from the rows of a layer to numbers with intervals."""
