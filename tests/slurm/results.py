"""Whether two runs of a study have the same results, to the last bit."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd

TABLES = ("metrics", "checkpoints", "profiles")


def same_tables(one: Path, other: Path) -> None:
    for name in TABLES:
        file = f"results/tables/{name}.parquet"
        pd.testing.assert_frame_equal(
            pd.read_parquet(one / file), pd.read_parquet(other / file), check_exact=True
        )


def same_archives(one: Path, other: Path, models: tuple[str, ...]) -> None:
    """Compare the statistics of some models, which both have for the same cells."""
    archives = {
        model: sorted(file.relative_to(one) for file in one.glob(f"results/statistics/{model}/**/*.h5"))
        for model in models
    }
    for model, files in archives.items():
        assert files, model
        assert files == sorted(
            file.relative_to(other) for file in other.glob(f"results/statistics/{model}/**/*.h5")
        )
        for file in files:
            _same_archive(one / file, other / file)


AXES = ("DIMENSION_LIST", "REFERENCE_LIST")  # references into the file, which have no value of their own


def _same_archive(one: Path, other: Path) -> None:
    first, second = _content(one), _content(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=f"{name} of {one}")


def _content(file: Path) -> dict[str, object]:
    """Return all arrays and attributes of an archive."""
    content: dict[str, object] = {}

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        own = {key: value for key, value in item.attrs.items() if key not in AXES}
        content.update({f"{name}@{key}": value for key, value in own.items()})
        if isinstance(item, h5py.Dataset):
            content[name] = item[()]
            content[f"{name}@axes"] = [scale.name for axis in item.dims for scale in axis.values()]

    with h5py.File(file) as archive:
        add("", archive)
        archive.visititems(add)
    return content
