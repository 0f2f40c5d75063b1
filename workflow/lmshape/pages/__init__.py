"""The pages that a study ends with."""
