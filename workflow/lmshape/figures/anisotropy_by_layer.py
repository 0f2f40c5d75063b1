"""Anisotropy by layer at each model's last checkpoint: encoders against decoders, with and without sinks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, nulls, selection
from lmshape.figures.style import INK, Look, looks_by_kind, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Anisotropy by layer: encoders against decoders"
FINAL_NORM_DEPTH = 1.17


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy on the first dataset at each model's last checkpoint, and its null."""
    rows = selection.metric_rows(tables["metrics"], "anisotropy")
    last = selection.final_checkpoints(selection.first_dataset(rows))
    return selection.with_null(last, tables["metrics"], "anisotropy_null")


def draw(data: pd.DataFrame) -> Figure:
    """Draw one panel for each choice of rows, one line for each model."""
    with styled():
        if data.empty:
            return marks.empty_figure(title=TITLE, note="This study has no anisotropy to draw.")
        models = data.drop_duplicates("model").set_index("model")["kind"].to_dict()
        look = looks_by_kind(models)
        variants = selection.in_order(data["rows"])
        figure, panels = marks.panel_grid(variants, ["all models"], size=(4.4, 4.0))
        for rows in variants:
            _panel(panels[rows, "all models"], data[data["rows"] == rows], look)
            panels[rows, "all models"].set_title(marks.VARIANT_NAMES.get(rows, rows))
        panels[variants[0], "all models"].set_ylabel(
            f"{marks.METRIC_LABELS['anisotropy']} (share of variance)"
        )
        _legend(figure, panels[variants[0], "all models"], models)
        marks.finish(
            figure, title=f"{TITLE}, last checkpoint, {selection.dataset_names(data)}", notes=_notes(data)
        )
        return figure


def _panel(ax: Axes, frame: pd.DataFrame, look: Mapping[str, Look]) -> None:
    for model, of_model in frame.groupby("model", sort=False):
        final = of_model["site"] == "final_norm"
        marks.line(ax, of_model[~final], x="depth", look=look[model], label=model)
        nulls.line(ax, of_model[~final], x="depth")
        marks.off_line(ax, of_model[final], x=FINAL_NORM_DEPTH, look=look[model])
    ticks, names = [0, 0.25, 0.5, 0.75, 1], ["embed-\nding", "¼", "½", "¾", "last\nblock"]
    if (frame["site"] == "final_norm").any():
        ticks, names = [*ticks, FINAL_NORM_DEPTH], [*names, "final\nnorm"]
    ax.set_xticks(ticks, names)
    ax.set(xlabel="relative depth (layer / number of blocks)", xlim=(-0.04, ticks[-1] + 0.06))
    marks.anisotropy_axis(ax)
    marks.note_without_numbers(ax, frame)


def _legend(figure: Figure, ax: Axes, models: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    entries = []
    for kind in sorted(set(models.values())):
        entries.append((Line2D([], [], linestyle="none"), f"{kind}s"))
        entries += [(handles[model], model) for model in models if models[model] == kind and model in handles]
    if nulls.ISOTROPIC in handles:
        entries += [(Line2D([], [], linestyle="none"), "null"), (handles[nulls.ISOTROPIC], nulls.ISOTROPIC)]
    legend = figure.legend(*zip(*entries, strict=True), loc="outside right upper")
    for text in legend.get_texts():
        if text.get_text() not in handles:
            text.set(fontweight="bold", color=INK)


def _notes(data: pd.DataFrame) -> list[str]:
    missing = [kind for kind in ("decoder", "encoder") if kind not in set(data["kind"])]
    return [
        *(f"No {kind} in this study." for kind in missing),
        marks.interval_note(data, marks.JACKKNIFE),
        nulls.isotropic_note(data["null"]),
        marks.flag_note(data),
    ]
