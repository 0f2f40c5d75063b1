"""The columns of the table `profiles`."""

from __future__ import annotations

from lmshape.tables.columns import COLUMN_DESCRIPTIONS, declare

# What a profile belongs to, beside its rows and its metric.
CELL = ("study", "model", "family", "kind", "checkpoint", "step", "tokens_seen", "dataset")

PROFILE_DESCRIPTIONS = {
    **{name: COLUMN_DESCRIPTIONS[name] for name in CELL},
    "rows": COLUMN_DESCRIPTIONS["rows"],
    "metric": "the metric that is followed over the layers",
    "peak_layer": "block after which the value is largest",
    "peak_layer_low": "first block that cannot be told from the peak: 95 % interval",
    "peak_layer_high": "last block that cannot be told from the peak",
    "peak_depth": "peak_layer / number of blocks",
    "height": "value at the peak",
    "height_low": "lower end of its 95 % interval",
    "height_high": "upper end of its 95 % interval",
    "edges": "the larger of the values after the first and after the last block",
    "dome_index": "height - edges, in [0, 1]; 0 for a profile that is flat or monotone",
    "dome_index_low": "lower end of its 95 % interval, paired by draws, over all blocks that may be the peak",
    "dome_index_high": "upper end of its 95 % interval",
    "dome_index_null": "dome_index that a flat profile with this noise stays under in 95 of 100 samples",
    "dome": "none: dome_index is not over its null; slight: over it, but under 0.05; plateau: with a top_share of 0.7 "
    "or more; dome; empty without a null",
    "width": "relative depth over which the value is over half the way from edges to height; NaN if monotone",
    "top_share": "relative depth over nine tenths of that way, over width: 0.2 a tent, 0.45 a parabola, 1 two cliffs",
    "distance_to_final": "root mean square difference over the blocks to the last trusted checkpoint, without the "
    "noise's part",
    "distance_low": "lower end of its 95 % interval, paired by draws",
    "distance_high": "upper end of its 95 % interval",
    "flag": "monotone: the peak is at the first or last block; and the reason of NaN; empty when fine",
}

PROFILE_COLUMNS = declare(
    PROFILE_DESCRIPTIONS,
    integers=["step", "peak_layer", "peak_layer_low", "peak_layer_high"],
    reals=[
        "tokens_seen",
        "peak_depth",
        "height",
        "height_low",
        "height_high",
        "edges",
        "dome_index",
        "dome_index_low",
        "dome_index_high",
        "dome_index_null",
        "width",
        "top_share",
        "distance_to_final",
        "distance_low",
        "distance_high",
    ],
)
