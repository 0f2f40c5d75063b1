"""Measure the shape of a language model's representation space, and how training gives it that shape."""

__version__ = "0.1.0"
