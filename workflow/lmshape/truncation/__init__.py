"""The loss of a decoder with only some directions of its residual stream."""
