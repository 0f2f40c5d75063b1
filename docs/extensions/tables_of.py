"""`table-columns`: the columns of a table below results/tables, as the module that writes it declares them."""

from __future__ import annotations

from importlib import import_module

from generated import Generated, table

DECLARED = {
    "metrics": "lmshape.tables.columns:COLUMNS",
    "model": "lmshape.tables.columns:MODEL_COLUMNS",
    "checkpoints": "lmshape.tables.study_tables:CHECKPOINT_COLUMNS",
    "audit": "lmshape.tables.gather:AUDIT_COLUMNS",
    "profiles": "lmshape.dynamics.profiles:PROFILE_COLUMNS",
    "phases": "lmshape.dynamics.phases:PHASE_COLUMNS",
    "contrasts": "lmshape.dynamics.contrasts:CONTRAST_COLUMNS",
    "spikes": "lmshape.tables.loss_spikes:SPIKE_COLUMNS",
    "warnings": "lmshape.tables.loss_spikes:WARNING_COLUMNS",
    "alarms": "lmshape.tables.loss_spikes:ALARM_COLUMNS",
    "before_spikes": "lmshape.tables.loss_spikes:BEFORE_COLUMNS",
    "truncation": "lmshape.truncation.tables:TRUNCATION_COLUMNS",
    "truncation_ranks": "lmshape.truncation.tables:RANKS_COLUMNS",
    "spectra": "lmshape.tables.shapes:SPECTRA_COLUMNS",
    "clouds": "lmshape.tables.shapes:CLOUD_COLUMNS",
    "claims": "lmshape.claims:CLAIM_COLUMNS",
}
KINDS = {"string": "text", "int64": "integer", "double": "real", "list<item: double>": "list of reals"}


class TableColumns(Generated):
    """Name, type and meaning of every column of a table."""

    def markdown(self, name: str) -> str:
        """Write one table."""
        module, _, attribute = DECLARED[name].partition(":")
        schema = getattr(import_module(module), attribute)
        rows = [
            (f"`{field.name}`", _kind(field), field.metadata[b"description"].decode()) for field in schema
        ]
        return table(["column", "type", "meaning"], rows)


def _kind(field: object) -> str:
    return KINDS.get(str(field.type), str(field.type))
