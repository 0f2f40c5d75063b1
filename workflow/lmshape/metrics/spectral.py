"""Spectral family: the eigenvalues of the covariance of a layer, pooled and with each draw left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from math import inf, isnan, nan

import numpy as np

from lmshape.geometry import nulls, scalars
from lmshape.geometry.leading import leading_rows_of
from lmshape.geometry.spectrum import Spectra, spectra_of_sums
from lmshape.metrics.layer import Arrays, Found, Layer, Measured, blas_threads
from lmshape.metrics.metric import Family, Metric, no_doubt
from lmshape.metrics.rows import pooled_sums
from lmshape.store.statistics import LEFT_OUT


def statistics(layer: Layer) -> dict[str, Found]:
    """Return the spectra of the rows of each choice, of n rows and width d in K draws.

    The arrays of `Spectra`, each with K + 1 entries: all rows, then without each draw. Eigenvalues are 0 where
    all rows are equal. 16 (K + 1) d bytes: 0.4 MB at 5 draws of width 4096.

    One pass for all choices, O(n d²) time and O(K d²) memory, then O(d³) for each entry, or O(n² d) where rows are
    fewer than columns.
    """
    with blas_threads(layer.rows.shape[1]):
        sums = pooled_sums(layer)
        spectra = {name: spectra_of_sums(sums.leave_one_out(name, within=name)) for name in layer.kept}
    return {name: (_arrays(own), {"flag": ""}) for name, own in spectra.items()}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> Arrays:
    """Return the arrays of `statistics`, NaN, for rows that have no spectrum."""
    shapes = {
        "rows": (),
        "eigenvalues": (max(min(rows - 1, width), 1),),
        "leading_uncentered": (2,),
        "leading_standardized": (2,),
        "variances": (width,),
        "fourth_moment": (),
    }
    return {name: np.full((draws + 1, *shape), np.nan) for name, shape in shapes.items()}


def _arrays(spectra: Spectra) -> Arrays:
    return {field.name: getattr(spectra, field.name) for field in fields(Spectra)}


def _of(arrays: Arrays, *, array: str, scalar: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return scalar(arrays[array])


def _largest_share(arrays: Arrays, *, array: str) -> np.ndarray:
    """Return λ1 / Σλ of spectra of which these two are kept; NaN where Σλ is 0."""
    largest, total = arrays[array].T
    return np.divide(largest, total, out=np.full_like(total, nan), where=total != 0)


def _sized(arrays: Arrays, *, scalar: Callable[..., np.ndarray]) -> np.ndarray:
    """Return a scalar that depends on n and d, too."""
    return scalar(arrays["eigenvalues"], rows=arrays["rows"], width=arrays["variances"].shape[-1])


def _corrected(arrays: Arrays) -> np.ndarray:
    return scalars.corrected_participation_ratio_of(
        arrays["eigenvalues"], rows=arrays["rows"], fourth_moment=arrays["fourth_moment"]
    )


def _components_explaining(arrays: Arrays, *, share: float) -> np.ndarray:
    """Return the whole number of all rows; without each draw, the number with a part of its last component."""
    partial_counts = scalars.partial_components_of(arrays["eigenvalues"], share)
    return np.concatenate([scalars.components_of(arrays["eigenvalues"][:1], share), partial_counts[1:]])


def _null(arrays: Arrays, *, null: Callable[[int, int], float]) -> np.ndarray:
    """Return the null at the n and d of all rows, for each draw left out, too: it is known without error."""
    rows, width = arrays["rows"], arrays["variances"].shape[-1]
    return np.full(len(rows), nan if isnan(rows[0]) else null(int(rows[0]), width))


LEAST_ROWS = 10  # that carry the leading axis: with fewer, intervals hold the truth in 49 to 92 % of samples


def few_rows(arrays: Arrays) -> str:
    """Say that few rows carry the leading axis, as massive ones do: another sample could well have none of them."""
    eigenvalues, rows, fourth = (arrays[name][0] for name in ("eigenvalues", "rows", "fourth_moment"))
    carrying = leading_rows_of(eigenvalues, rows=int(rows), fourth_moment=float(fourth))
    return (
        f"few rows carry the leading axis: about {carrying:.0f} of {rows:.0f}"
        if carrying < LEAST_ROWS
        else ""
    )


_spectrum = partial(
    Metric, family="spectral", interval="jackknife", undefined="zero variance", doubt=few_rows
)
_share = partial(_spectrum, low=0.0, high=1.0)
_dimensions = partial(_spectrum, low=1.0, high=inf)
_eigenvalues = partial(_of, array="eigenvalues")
_components = partial(
    _dimensions,
    step=1.0,
    range="[1, min(n - 1, d)], whole; its interval is not",
    source="principal component analysis, Jolliffe 2002",
)
_isotropic = partial(
    _spectrum,
    undefined="no rows",
    null="itself a null: the value of rows without structure",
    doubt=no_doubt,
)

SPECTRAL = Family(
    "spectral",
    measured=Measured(
        name="spectral",
        statistics=statistics,
        missing=missing,
        axes={
            "eigenvalues": (LEFT_OUT, "component"),
            "leading_uncentered": (LEFT_OUT, "largest_and_sum"),
            "leading_standardized": (LEFT_OUT, "largest_and_sum"),
            "variances": (LEFT_OUT, "entry"),
        },
    ),
    metrics=(
        _share(
            name="anisotropy",
            definition="λ1 / Σλ, λ the eigenvalues of the covariance of the rows; no row normalization",
            range="[1/min(n - 1, d), 1]",
            null="1/d for isotropic rows as n → ∞; at finite n (1 + √(d/n))²/d",
            source="Razzhigaev et al. 2024, arXiv 2311.05928",
            values=partial(_eigenvalues, scalar=scalars.anisotropy_of),
        ),
        _share(
            name="anisotropy_uncentered",
            definition="λ1 / Σλ without subtracting the mean: the control for a cone that is only the mean",
            range="[1/min(n, d), 1]",
            null="that of anisotropy where the mean is zero; → 1 where the mean outweighs the spread",
            source="Razzhigaev et al. 2024, arXiv 2311.05928",
            undefined="all rows zero",
            values=partial(_largest_share, array="leading_uncentered"),
        ),
        _share(
            name="anisotropy_standardized",
            definition="λ1 / Σλ after dividing each coordinate by its standard deviation: the control for rogue ones",
            range="[1/min(n - 1, d), 1]",
            null="that of anisotropy",
            source="Timkey & van Schijndel 2021, arXiv 2109.04404",
            values=partial(_largest_share, array="leading_standardized"),
        ),
        _isotropic(
            name="anisotropy_null",
            definition="(1 + √(d/n))²/d: anisotropy of n isotropic rows, the Marchenko-Pastur edge",
            low=0.0,
            high=1.0,
            range="(1/d, 1]",
            source="Marchenko & Pastur 1967",
            values=partial(_null, null=nulls.anisotropy_null),
        ),
        _share(
            name="rogue_share_1",
            definition="share of the total variance that the coordinate of the largest variance carries",
            range="[1/d, 1]",
            null="1/d, a little more at finite n",
            source="Timkey & van Schijndel 2021, arXiv 2109.04404",
            values=partial(_of, array="variances", scalar=partial(scalars.rogue_share_of, count=1)),
        ),
        _share(
            name="rogue_share_3",
            definition="share of the total variance that the three coordinates of the largest variances carry",
            range="[3/d, 1]",
            null="3/d, a little more at finite n",
            source="Timkey & van Schijndel 2021, arXiv 2109.04404",
            values=partial(_of, array="variances", scalar=partial(scalars.rogue_share_of, count=3)),
        ),
        _dimensions(
            name="effective_rank",
            definition="exp(-Σ p ln p), p = λ/Σλ of the covariance",
            range="[1, min(n - 1, d)]",
            null="d for isotropic rows as n → ∞, less at finite n: effective_rank_null",
            source="Roy & Vetterli 2007, on eigenvalues; arXiv 2509.23024",
            values=partial(_eigenvalues, scalar=scalars.effective_rank_of),
        ),
        _dimensions(
            name="effective_rank_bulk",
            definition="effective_rank of the covariance without its 32 leading directions",
            range="[1, min(n - 1, d) - 32]",
            null="d - 32 for isotropic rows as n → ∞, less at finite n",
            source="fragmential/training-time-entropy-circuits, top-32 removed",
            undefined="no variance past the 32nd eigenvalue",
            doubt=no_doubt,
            values=partial(_eigenvalues, scalar=scalars.bulk_effective_rank_of),
        ),
        _isotropic(
            name="effective_rank_null",
            definition="m exp(-m/(2M)), m and M the smaller and larger of n - 1 and d: that of n isotropic rows",
            low=1.0,
            high=inf,
            range="[1, min(n - 1, d)]",
            source="entropy of the Marchenko-Pastur law: Page 1993, doi:10.1103/PhysRevLett.71.1291",
            values=partial(_null, null=nulls.effective_rank_null),
        ),
        _dimensions(
            name="rankme",
            definition="exp(-Σ p ln p), p = σ/Σσ + 1e-7, σ the singular values of the centered rows",
            range="[1, min(n, d)]",
            null="d for isotropic rows as n → ∞, less at finite n",
            source="Garrido et al. 2023, arXiv 2210.02885",
            values=partial(_sized, scalar=scalars.rankme_of),
        ),
        _dimensions(
            name="participation_ratio",
            definition="(Σλ)² / Σλ² of the covariance",
            range="[1, min(n - 1, d)]",
            null="d for isotropic rows as n → ∞; at finite n about d/(1 + d/n)",
            source="Gao et al. 2017, bioRxiv 214262; at finite n arXiv 2509.26560",
            values=partial(_eigenvalues, scalar=scalars.participation_ratio_of),
        ),
        _isotropic(
            name="participation_ratio_null",
            definition="((n - 1)d + 2)/(n + d): participation ratio of n isotropic rows, E(tr S)²/E tr S²",
            low=1.0,
            high=inf,
            range="[1, min(n - 1, d)]",
            source="moments of the Wishart law; arXiv 2509.26560",
            values=partial(_null, null=nulls.participation_ratio_null),
        ),
        _spectrum(
            name="participation_ratio_corrected",
            definition="unbiased (Σλ)² / unbiased Σλ² of the population, from averages over four different rows",
            low=0.0,
            high=inf,
            range="[1, d] up to its noise",
            null="d for isotropic rows at any n",
            source="γ_row of arXiv 2509.26560; Himeno & Yamada 2014",
            undefined="zero variance, under 4 rows, or an estimate of Σλ² that is not positive",
            values=_corrected,
        ),
        *(
            _components(
                name=f"components_{percent}",
                definition=f"the least k with λ1 + … + λk at least {percent} % of Σλ",
                null=f"about {percent} % of d for isotropic rows as n → ∞, less at finite n",
                values=partial(_components_explaining, share=percent / 100),
            )
            for percent in (90, 95, 99)
        ),
        _spectrum(
            name="alpha_req",
            definition="minus the slope of ln λi on ln i, weighted by 1/i, over the ranks 11 to 100 or to the last",
            low=0.0,
            high=inf,
            range="[0, ∞)",
            null="0 for equal variances; above 0 at finite n",
            source="Agrawal et al. 2022; arXiv 2509.23024",
            undefined="fewer than 20 ranks",
            doubt=no_doubt,
            values=partial(_eigenvalues, scalar=scalars.alpha_req_of),
        ),
        _share(
            name="isoscore",
            definition="((d - δ²(d - √d))² - d) / (d(d - 1)), which is (participation_ratio - 1)/(d - 1)",
            range="[0, 1]",
            null="1 for isotropic rows as n → ∞; at finite n about 1/(1 + d/n)",
            source="Rudman et al. 2022, arXiv 2108.07344",
            undefined="zero variance, one column, or no more rows than columns",
            values=partial(_sized, scalar=scalars.isoscore_of),
        ),
    ),
)
