"""From the activations of a layer to the statistics that metrics are made of."""
