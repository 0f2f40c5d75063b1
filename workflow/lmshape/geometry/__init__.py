"""The geometry of a cloud of points: pure functions of arrays, for a notebook as for the study.

Every function takes NumPy arrays or torch tensors of any real dtype and computes in float64.
"""

from lmshape.geometry.angles import leave_one_out_mean_cosine, mean_cosine
from lmshape.geometry.dimension import (
    intrinsic_dimension,
    levina_bickel,
    levina_bickel_from_summary,
    twonn,
    twonn_fit,
)
from lmshape.geometry.neighbors import Neighbors, nearest_neighbors, unique_rows
from lmshape.geometry.resample import Estimate, jackknife, over_draws
from lmshape.geometry.sinks import sink_rows
from lmshape.geometry.spectrum import (
    CovarianceSums,
    anisotropy,
    anisotropy_of,
    covariance_eigenvalues,
    effective_rank,
    effective_rank_of,
    leave_one_out_eigenvalues,
    participation_ratio,
    participation_ratio_of,
)

__all__ = [
    "CovarianceSums",
    "Estimate",
    "Neighbors",
    "anisotropy",
    "anisotropy_of",
    "covariance_eigenvalues",
    "effective_rank",
    "effective_rank_of",
    "intrinsic_dimension",
    "jackknife",
    "leave_one_out_eigenvalues",
    "leave_one_out_mean_cosine",
    "levina_bickel",
    "levina_bickel_from_summary",
    "mean_cosine",
    "nearest_neighbors",
    "over_draws",
    "participation_ratio",
    "participation_ratio_of",
    "sink_rows",
    "twonn",
    "twonn_fit",
    "unique_rows",
]
