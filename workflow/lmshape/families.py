"""Names of the metrics by family: light enough to be read whenever Snakemake reads its rules.

A family's metrics come from one statistics archive; `lmshape.metrics` says how each is computed.
"""

from __future__ import annotations

from collections.abc import Iterable

from lmshape.errors import unknown

METRIC_FAMILIES: dict[str, tuple[str, ...]] = {
    "spectral": (
        "anisotropy",
        "anisotropy_uncentered",
        "anisotropy_standardized",
        "anisotropy_null",
        "rogue_share_1",
        "rogue_share_3",
        "effective_rank",
        "effective_rank_null",
        "rankme",
        "participation_ratio",
        "participation_ratio_null",
        "participation_ratio_corrected",
        "components_90",
        "components_95",
        "components_99",
        "alpha_req",
        "isoscore",
    ),
    "angular": (
        "mean_cosine",
        "mean_cosine_centered",
        "norm_median",
        "norm_max",
        "activation_max",
        "massive_count",
    ),
    "neighbor": (
        "id_twonn",
        "id_twonn_surrogate",
        "id_twonn_fit",
        "id_twonn_fit20",
        *(f"id_gride_{n2}" for n2 in (2, 4, 8, 16, 32, 64)),
        "id_mle",
        "id_mada",
        "id_local_mean",
        "id_local_q25",
        "id_local_median",
        "id_local_q75",
        "duplicate_share",
    ),
    "loss": ("loss", "bits_per_byte"),
}
OUTPUT_FAMILY = "loss"  # of the model's output, not of a layer: no statistics archive belongs to it
FAMILY_AND_METRIC_NAMES = tuple(  # "loss" is both
    dict.fromkeys([*METRIC_FAMILIES, *(name for names in METRIC_FAMILIES.values() for name in names)])
)


def metric_names(chosen: Iterable[str]) -> tuple[str, ...]:
    """Put metrics for families, each once, in the order of the table.

    `loss` names a family and one of its metrics; it is read as the family.

    Raises
    ------
    InputError
        When a name is neither a family nor a metric; the message names the nearest.
    """
    wanted = set(chosen)
    for name in sorted(wanted - set(FAMILY_AND_METRIC_NAMES)):
        raise unknown("metric or metric family", name, FAMILY_AND_METRIC_NAMES)
    return tuple(
        name for family, names in METRIC_FAMILIES.items() for name in names if wanted & {family, name}
    )


def families_of(chosen: Iterable[str]) -> tuple[str, ...]:
    """Families that the metrics or families belong to, in the order of the table."""
    wanted = set(metric_names(chosen))
    return tuple(family for family, names in METRIC_FAMILIES.items() if wanted & set(names))


def measured_families(metrics: Iterable[str]) -> tuple[str, ...]:
    """Families with statistics of layers that metrics or families need: all but the loss's."""
    return tuple(family for family in families_of(metrics) if family != OUTPUT_FAMILY)
