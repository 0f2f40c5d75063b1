"""The figures, in the order in which the report shows them; read with the rules, so it imports nothing."""

NAMES = (
    "anisotropy_by_layer",
    "anisotropy_over_training",
    "dimension_over_training",
    "dimension_by_scale",
    "controls",
    "loss_spike",
)
