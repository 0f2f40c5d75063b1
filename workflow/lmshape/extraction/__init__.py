"""From a checkpoint and tokens to the activations of every layer, and the loss."""
