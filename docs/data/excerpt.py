"""Take from a study's tables what the pages and the notebook show: `python docs/data/excerpt.py results/tables`."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmshape.claims import CLAIM_COLUMNS
from lmshape.errors import InputError
from lmshape.tables.columns import COLUMNS
from lmshape.tables.study_tables import CHECKPOINT_COLUMNS
from lmshape.writing import replaced_when_whole

HERE = Path(__file__).parent
METRICS = (
    "anisotropy",
    "anisotropy_null",
    "id_twonn",
    "id_twonn_surrogate",
    "linearity",
    "linearity_null",
    "linearity_residual_held_out",
    "loss",
)
WHOLE = {"checkpoints": CHECKPOINT_COLUMNS, "claims": CLAIM_COLUMNS}  # small ones; a study may lack one
MOST_BYTES = 300_000


def excerpt(tables: Path, output: Path) -> int:
    """Write the excerpt of a folder of tables and return its size in bytes.

    Raises
    ------
    InputError
        When the folder has no table of metrics, or the excerpt is larger than a repository should carry.
    """
    source = tables / "metrics.parquet"
    if not source.is_file():
        raise InputError(f"`{source}` does not exist; run the study first, or name its results/tables.")
    metrics = pq.read_table(source).cast(COLUMNS)
    chosen = {"metrics": metrics.filter(pc.is_in(metrics["metric"].cast(pa.string()), pa.array(METRICS)))}
    there = {name: tables / f"{name}.parquet" for name in WHOLE if (tables / f"{name}.parquet").is_file()}
    chosen |= {name: pq.read_table(path).cast(WHOLE[name]) for name, path in there.items()}
    size = 0
    for name, table in chosen.items():
        with replaced_when_whole(output / f"{name}.parquet") as partial:
            pq.write_table(table, partial, compression="zstd", compression_level=19)
            size += partial.stat().st_size
    if size > MOST_BYTES:
        raise InputError(f"the excerpt has {size} bytes, more than {MOST_BYTES}; take fewer metrics.")
    return size


if __name__ == "__main__":
    try:
        print(f"{excerpt(Path(sys.argv[1]), HERE)} bytes below {HERE}")
    except InputError as error:
        sys.exit(f"error: {error}")
