"""How large the activation store of a cell is: light enough to be asked whenever Snakemake reads its rules."""

from __future__ import annotations

CHUNK_BYTES = 2**20  # large enough to stream at disk speed, small enough for HDF5's own chunk cache
TOKEN_BYTES = 21  # id, sequence, position, draw, nll of 4 bytes each, special of 1
TYPE_BYTES = 64  # id and text of a token type, at most, but for a few that are whole words
SITE_BYTES, CHUNK_ENTRY_BYTES = 6000, 64  # HDF5's own: headers and attributes of a site, its index of chunks


def chunk_rows(n: int, width: int) -> int:
    """Rows of a chunk; the last chunk of a site takes as much of the disk as the others."""
    return max(1, min(n, CHUNK_BYTES // (4 * width)))


def stored_bytes(n: int, width: int, *, sites: int, types: int) -> int:
    """Size of a store of n tokens of so many types: at most this, and beyond 1 MB hardly 2 % less."""
    chunks = -(-n // chunk_rows(n, width))
    site = chunks * (4 * width * chunk_rows(n, width) + CHUNK_ENTRY_BYTES) + SITE_BYTES
    return sites * site + n * TOKEN_BYTES + types * TYPE_BYTES + 2 * SITE_BYTES
