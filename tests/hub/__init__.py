"""A package, so that its conftest does not hide the one of `tests/workflow` from the tests there."""
