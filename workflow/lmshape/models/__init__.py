"""From a folder of weights to the residual stream, the activations of every layer, and the loss."""
