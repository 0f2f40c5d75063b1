"""The scales at which the neighbor family estimates dimension: what is kept of a layer, estimated and named alike.

Without imports: names of metrics, which Snakemake reads, and fingerprints of measuring code depend on it.
"""

from __future__ import annotations

GRIDE_SCALES = (2, 4, 8, 16, 32, 64)  # the further of GRIDE's two neighbors
DECIMATIONS = (2, 4, 8)  # of the rows of a draw, one in so many
NEIGHBORS = 20  # of the Levina-Bickel estimates: the sum of logarithms is over the nearer 19
