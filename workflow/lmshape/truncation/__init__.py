"""The loss of a decoder with some directions of its residual stream alone."""
