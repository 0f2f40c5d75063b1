"""The figures, in the order in which the report shows them; read with the rules, so it imports nothing."""

NAMES = (
    "anisotropy_by_layer",
    "dimension_by_layer",
    "encoders_and_decoders",
    "linearity_by_layer",
    "anisotropy_over_training",
    "anisotropy_map",
    "dimension_over_training",
    "dimension_map",
    "phases",
    "dimension_by_scale",
    "dimension_by_size",
    "spectrum",
    "sinks",
    "clouds",
    "controls",
    "spikes",
    "truncation",
)

# Beside metrics, checkpoints and profiles, which all figures may draw from.
TABLES_OF = {
    "phases": ("phases",),
    "spectrum": ("spectra",),
    "sinks": ("audit",),
    "clouds": ("clouds",),
    "spikes": ("spikes", "warnings", "alarms", "before_spikes"),
    "truncation": ("truncation", "truncation_ranks"),
}
DRAW_LOSSES = ("spikes",)  # from the losses of every step
