"""Names of the metrics by family: light enough to be read whenever Snakemake reads its rules.

A family's metrics come from one statistics archive; `lmshape.metrics.registry` says how each is computed.
The names stand in
both, since that table imports NumPy and every estimator; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lmshape.errors import unknown
from lmshape.metrics.neighbor import DECIMATIONS, GRIDE_SCALES

METRIC_FAMILIES: dict[str, tuple[str, ...]] = {
    "spectral": (
        "anisotropy",
        "anisotropy_uncentered",
        "anisotropy_standardized",
        "anisotropy_null",
        "rogue_share_1",
        "rogue_share_3",
        "effective_rank",
        "effective_rank_bulk",
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
    "leading": (
        "leading_share_position_0",
        "leading_share_position_0_null",
        "leading_share_other_sinks",
        "leading_share_other_sinks_null",
        "leading_share_first_newline",
        "leading_share_rest",
        "leading_kurtosis",
        "anisotropy_without_position_0",
    ),
    "neighbor": (
        "id_twonn",
        "id_twonn_surrogate",
        "id_twonn_fit",
        "id_twonn_fit20",
        *(f"id_gride_{n2}" for n2 in GRIDE_SCALES),
        *(f"id_twonn_decimated_{share}" for share in DECIMATIONS),
        "id_mle",
        "id_mada",
        "id_local_mean",
        "id_local_q25",
        "id_local_median",
        "id_local_q75",
        "duplicate_share",
    ),
    "linearity": (
        "linearity",
        "linearity_null",
        "linearity_held_out",
        "linearity_residual",
        "linearity_residual_held_out",
    ),
    "released": ("id_released",),
    "released_linearity": ("linearity_released",),
    "loss": ("loss", "bits_per_byte"),
}
OUTPUT_FAMILY = "loss"  # of the model's output, not of a layer: no statistics archive belongs to it
OWN_FAMILY = "own"  # of the functions in a user's file: `lmshape.metrics.own`
RELEASED_FAMILIES = ("released", "released_linearity")  # two, since only linearity needs the layer before


def with_own(own: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Return the families and their metrics, the user's own last if there are any."""
    return METRIC_FAMILIES | ({OWN_FAMILY: tuple(own)} if own else {})


def family_and_metric_names(own: Sequence[str] = ()) -> tuple[str, ...]:
    """Return every name that can stand in a list of metrics, the user's own included."""
    return tuple(dict.fromkeys(name for family, names in with_own(own).items() for name in (family, *names)))


def metric_names(chosen: Iterable[str], own: Sequence[str] = ()) -> tuple[str, ...]:
    """Put metrics for families, each once, in the order of the table.

    `loss` and `linearity` name a family and one of its metrics; they are read as the family. `released` stands
    for both families that are as released.

    Parameters
    ----------
    chosen : names of metrics or families
    own : names of the user's own metrics

    Raises
    ------
    InputError
        When a name is neither a family nor a metric; the message names the nearest.
    """
    wanted, valid = set(chosen), family_and_metric_names(own)
    for name in sorted(wanted - set(valid)):
        raise unknown("metric or metric family", name, valid)
    if "released" in wanted:
        wanted.update(RELEASED_FAMILIES)
    return tuple(name for family, names in with_own(own).items() for name in names if wanted & {family, name})


def families_of(chosen: Iterable[str], own: Sequence[str] = ()) -> tuple[str, ...]:
    """Families that the metrics or families belong to, in the order of the table."""
    wanted = set(metric_names(chosen, own))
    return tuple(family for family, names in with_own(own).items() if wanted & set(names))


def measured_families(metrics: Iterable[str], own: Sequence[str] = ()) -> tuple[str, ...]:
    """Families with statistics of layers that metrics or families need: all but the loss's."""
    return tuple(family for family in families_of(metrics, own) if family != OUTPUT_FAMILY)
