"""From a folder of weights to a network, its residual stream, and where it runs."""
