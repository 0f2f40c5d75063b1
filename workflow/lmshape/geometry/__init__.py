"""The geometry of a cloud of points: pure functions of arrays, for notebooks and for the study.

Every function takes NumPy arrays or torch tensors of any real dtype and computes in float64. The
released functions are the exception: `released_linearity` keeps float32, and `released_dimension` the float32 of its
heights, since the rounding is part of what was released.
"""

from lmshape.geometry.angular import (
    Norms,
    leave_one_out_mean_cosine,
    leave_one_out_norms,
    mean_cosine,
    row_norms,
)
from lmshape.geometry.comparison import (
    cka,
    information_imbalance,
    neighborhood_overlap,
    neighborhood_overlap_null,
)
from lmshape.geometry.dimension import gride, intrinsic_dimension, mada, mle, twonn, twonn_fit
from lmshape.geometry.distance_ratios import (
    gride_from_distances,
    local_mle_from_summary,
    mada_from_distances,
    mle_from_distances,
    mle_from_summary,
    twonn_fit_from_distances,
    twonn_from_distances,
)
from lmshape.geometry.leading import leading_kurtosis, leading_shares
from lmshape.geometry.linearity import linearity
from lmshape.geometry.neighbors import Neighbors, largest_error, nearest_among, nearest_neighbors
from lmshape.geometry.nulls import (
    anisotropy_null,
    effective_rank_null,
    gaussian_surrogate,
    participation_ratio_null,
    spectrum_null,
)
from lmshape.geometry.released import released_anisotropy, released_dimension, released_linearity
from lmshape.geometry.resample import Estimate, jackknife, over_draws
from lmshape.geometry.rows import one_per_type, sink_rows, unique_rows
from lmshape.geometry.scalars import (
    alpha_req,
    anisotropy,
    anisotropy_of,
    components,
    corrected_participation_ratio,
    effective_rank,
    effective_rank_of,
    isoscore,
    participation_ratio,
    participation_ratio_of,
    rankme,
    rogue_share,
)
from lmshape.geometry.spectrum import CovarianceSums, Spectra, covariance_eigenvalues, leave_one_out_spectra

__all__ = [
    "CovarianceSums",
    "Estimate",
    "Neighbors",
    "Norms",
    "Spectra",
    "alpha_req",
    "anisotropy",
    "anisotropy_null",
    "anisotropy_of",
    "cka",
    "components",
    "corrected_participation_ratio",
    "covariance_eigenvalues",
    "effective_rank",
    "effective_rank_null",
    "effective_rank_of",
    "gaussian_surrogate",
    "gride",
    "gride_from_distances",
    "information_imbalance",
    "intrinsic_dimension",
    "isoscore",
    "jackknife",
    "largest_error",
    "leading_kurtosis",
    "leading_shares",
    "leave_one_out_mean_cosine",
    "leave_one_out_norms",
    "leave_one_out_spectra",
    "linearity",
    "local_mle_from_summary",
    "mada",
    "mada_from_distances",
    "mean_cosine",
    "mle",
    "mle_from_distances",
    "mle_from_summary",
    "nearest_among",
    "nearest_neighbors",
    "neighborhood_overlap",
    "neighborhood_overlap_null",
    "one_per_type",
    "over_draws",
    "participation_ratio",
    "participation_ratio_null",
    "participation_ratio_of",
    "rankme",
    "released_anisotropy",
    "released_dimension",
    "released_linearity",
    "rogue_share",
    "row_norms",
    "sink_rows",
    "spectrum_null",
    "twonn",
    "twonn_fit",
    "twonn_fit_from_distances",
    "twonn_from_distances",
    "unique_rows",
]
