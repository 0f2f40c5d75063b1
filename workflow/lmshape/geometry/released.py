"""The estimators that the article's authors released (LLM-Microscope 0.0.6), for comparison with the corrected ones.

Written anew from the published code, its faults included: repeated rows stay and shift the rest of the
distribution, a fifth of the ratios is fitted, and the linear map is solved through 1/σ without a cut.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import as_floats, as_matrix, as_stored_matrix
from lmshape.geometry.neighbors import nearest_neighbors
from lmshape.geometry.scalars import anisotropy

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

RELEASED_ROWS = 4096  # the first of a layer: more took the authors' loop too long
NEGLIGIBLE = 1e-8  # in units of the rows' mean length: nearer neighbors, and nearer ratios to 1, are left out
FITTED = 5  # one in so many of the ratios left, the smallest, is fitted


def released_dimension(x: ArrayLike) -> float:
    """Estimate the dimension of a cloud as released: `released_dimension_of` its `released_distances`.

    x (n, d), n ≥ 3. Positive; with repeated rows far too high: 4096 rows in 10 dimensions read 9.9, and 68
    when a fifth of them are copies of others. NaN where fewer than 5 rows have two neighbors at different distances.
    """
    return released_dimension_of(released_distances(x))


def released_distances(x: ArrayLike) -> np.ndarray:
    """Return the distances of every row to its two nearest others, in units of the mean length.

    Parameters
    ----------
    x : (n, d) array or tensor, n ≥ 3; repeated rows are neighbors at distance 0

    Returns
    -------
    (n, 2) float64, ascending; the unit is the mean norm of the rows about their mean. 0 where fewer than three
    rows differ: the released code then leaves every row out.

    Notes
    -----
    The released loop measures all n² pairs; these are the same distances from an exact search among the
    different rows, since all that a copy changes is which distance comes first.
    """
    rows = as_matrix(x, minimum_rows=3)
    keys = [row.tobytes() for row in rows + 0.0]  # −0.0 + 0.0 is 0.0
    copies = Counter(keys)
    nearest_two = np.zeros((len(rows), 2))
    if len(copies) < 3:
        return nearest_two
    found = nearest_neighbors(rows, 2)
    count = np.array([copies[key] for key in keys])
    first, second = found.distances.T
    second = np.where(count[found.indices[:, 0]] > 1, first, second)
    alone = count[found.unique] == 1
    nearest_two[found.unique[alone]] = np.column_stack([first, second])[alone]
    return nearest_two / np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean()


def released_dimension_of(distances: ArrayLike) -> float:
    """Fit the dimension to the distances to the two nearest others, as released.

    The slope through 0 of −ln(1 − F) on ln(r2/r1), over the lowest fifth of the ratios above 1 + 1e-8 of rows
    with r1 ≥ 1e-8. F is the rank among all n rows, those left out ranked first, over n: it begins at their
    share and not at 0, which is why copies raise the slope.

    Parameters
    ----------
    distances : (n, 2) in units of the mean length, as `released_distances` gives them

    Returns
    -------
    Positive; NaN where fewer than 5 ratios are left.
    """
    first, second = as_floats(distances).T
    usable = first >= NEGLIGIBLE
    ratios = np.sort(second[usable] / first[usable])
    ratios = ratios[ratios > 1 + NEGLIGIBLE]
    total, left = len(first), len(ratios)
    fitted = left // FITTED
    if fitted < 1:
        return float("nan")
    # float32: what PyTorch makes of a division of whole numbers; it shows in the eighth digit
    rank = np.arange(1 + total - left, 1 + total - left + fitted, dtype=np.float32) / np.float32(total)
    heights = -np.log(np.float32(1) - rank)
    logs = np.log(ratios[:fitted])
    return float(heights @ logs / (logs @ logs))


def released_anisotropy(x: ArrayLike) -> float:
    """Return λ1/Σλ of a cloud x (n, d): as released but for the released code's float32, which moves 1e-6 of it.

    `lmshape.geometry.scalars.anisotropy` under the name that stands beside the other two. ValueError where all
    rows are equal.
    """
    return anisotropy(x)


def released_linearity(x: ArrayLike, y: ArrayLike) -> float:
    """Return 1 − ‖XA − Y‖² with A = X⁺Y, both centered and of Frobenius norm 1, in the precision of the rows.

    The pseudoinverse divides by every singular value, so that a direction without variance enters with the
    inverse of its rounding error.

    Parameters
    ----------
    x, y : (n, d) arrays or tensors, the same tokens before and after a block; computed in float32, as the released
        code does, where they are stored in no more, and in float64 otherwise

    Returns
    -------
    At most 1, which is a linear map, and about 1 whatever the data where n ≤ d. d/n for noise. Where columns of `x`
    depend on each other it is rounding noise, below 0 too, and differs between machines. NaN where all rows of
    `x` or of `y` are equal.

    Raises
    ------
    ValueError
        When `x` and `y` differ in shape, have fewer than 2 rows or hold entries that are not finite.
    """
    rows_x, rows_y = as_stored_matrix(x), as_stored_matrix(y, name="y")
    if rows_x.shape != rows_y.shape:
        raise ValueError(
            f"`x` has shape {rows_x.shape}, `y` {rows_y.shape}; they must hold the same tokens and width."
        )
    before, after = (_normalized(rows) for rows in (rows_x, rows_y))
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return float("nan")
    left, scales, right = np.linalg.svd(before, full_matrices=False)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # 1/0: theirs, and NaN in the end
        inverse = (right.T * (1 / scales)) @ left.T
        difference = before @ (inverse @ after) - after
        return float(1 - np.square(difference).sum())


def _normalized(rows: np.ndarray) -> np.ndarray:
    """Return the centered rows over their Frobenius norm; not finite where all rows are equal."""
    # PyTorch sums float32 in a cascade, NumPy along columns does not: the mean of float64 is the nearer one
    differences = rows - rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        return differences / np.linalg.norm(differences)
