"""The layers of one model: a panel for each metric, a line for each choice of rows. Of a table of `lmshape.profile`."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from lmshape.figures import layout, marks, notes
from lmshape.figures.style import looks, styled
from lmshape.tables.rows import in_order

SHOWN = ("anisotropy", "effective_rank", "mean_cosine", "id_twonn")
MOST_PANELS = 12


def shown_metrics(table: pd.DataFrame) -> list[str]:
    """Name the metrics worth a panel: `SHOWN` as far as they were measured, else the first of those that were."""
    layers = table.loc[table["site"] != "output", "metric"].unique().tolist()
    return [name for name in SHOWN if name in layers] or layers[:MOST_PANELS]


def draw_one_model(table: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Draw metrics over the layers of one model, with bands of their 95 % intervals.

    Parameters
    ----------
    table : of `lmshape.profile`
    metrics : names of metrics of layers, a panel each
    """
    data = table[table["metric"].isin(metrics) & (table["site"] != "output")]
    blocks = int(data["layer"].max())
    has_norm = bool((data["site"] == "final_norm").any())
    with styled():
        figure, panels = layout.panel_grid(metrics, ["all"], size=(4.2, 2.8), columns=2, same_scale=False)
        look = looks(in_order(data["rows"]))
        for (metric, _), ax in panels.items():
            for rows, line in look.items():
                chosen = data[(data["metric"] == metric) & (data["rows"] == rows)]
                on_line, norm = (
                    chosen[chosen["site"] != "final_norm"],
                    chosen[chosen["site"] == "final_norm"],
                )
                marks.line(
                    ax, on_line, x="layer", look=line, label=layout.SHORT_VARIANT_NAMES.get(rows, rows)
                )
                marks.off_line(ax, norm, x=marks.final_norm_place(blocks), look=line)
            marks.layer_axis(ax, blocks, final_norm=has_norm)
            ax.set_title(metric)
        first = next(iter(panels.values()))
        figure.legend(*first.get_legend_handles_labels(), loc="outside upper right", ncols=len(look))
        layout.label_outer_panels(panels.values())
        under = [notes.intervals(data, notes.BOTH), notes.sinks(data)]
        layout.finish(figure, title=str(data["model"].iloc[0]), notes=under)
    return figure
