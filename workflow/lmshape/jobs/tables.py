"""Jobs that turn statistics into tables: rows of a model, tables of the study, spikes, truncations, claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

from lmshape import paths
from lmshape.checkpoints import Checkpoint
from lmshape.digest import check_digest
from lmshape.jobs.hub import known_faults
from lmshape.jobs.rule import ARCHIVE_MEGABYTES, LEAST_DISK_MEGABYTES, Files, Given, Rule, Wildcards
from lmshape.jobs.texts import by_run, trained_files
from lmshape.site import named_layers
from lmshape.study.registry import REPOSITORY
from lmshape.study.study import Study

CLAIM_TABLES = ("phases", "checkpoints", "warnings", "truncation_ranks")
SHAPE_FAMILIES = ("spectral", "leading")  # of which the tables `spectra` and `clouds` are made
SHAPE_TABLES = ("spectra", "clouds")
CLAIMS_FILE = REPOSITORY / "workflow" / "lmshape" / "claims" / "claims.yaml"


class Gather(Rule):
    """The metrics of a model, with intervals, in one table; spectra and single rows of a few of its layers."""

    code = ("lmshape.tables.gather.gather", "lmshape.tables.shapes.shapes")
    log_file = "results/logs/gather/{model}.log"
    writes = (paths.MODEL_METRICS, *(paths.MODEL_SHAPES.replace("{table}", table) for table in SHAPE_TABLES))
    rank = 30
    usual_share = 0.03

    def jobs(self) -> Iterator[Wildcards]:
        return (Wildcards(model=name) for name in self.study.models)

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        on_hub = self.model(job).on_hub
        return {
            "statistics": self.statistics(job),
            "measured": self.measured(job),
            "losses": self.cards(job),
            "released": self.released(job) if on_hub else [],
            "lock": job.fill(paths.LOCK) if on_hub else [],
        }

    def statistics(self, job: Wildcards) -> list[str]:
        """Return the archives of a model."""
        return paths.statistics_files(
            job.model,
            self.model(job).measured,
            self.study.datasets_of[job.model],
            families=self.study.measured_families,
            blocks=self.study.blocks_of(job.model),
        )

    def shown(self, job: Wildcards) -> list[str]:
        """Return the archives that shapes are made of: on the first dataset, of the layers that stand for a network."""
        model, measured_on = self.model(job), self.study.datasets_of[job.model]
        named = named_layers(model.blocks).values()
        blocks = self.study.blocks_of(job.model)
        return paths.statistics_files(
            job.model,
            model.measured,
            [name for name in self.study.datasets if name in measured_on][:1],
            families=[name for name in SHAPE_FAMILIES if name in self.study.measured_families],
            blocks=[block for block in blocks if any(block[0] <= layer <= block[1] for layer in named)],
        )

    def cards(self, job: Wildcards) -> list[str]:
        """Return the loss cards of a model."""
        return paths.loss_cards(job.model, self.model(job).measured, self.study.datasets_of[job.model])

    def measured(self, job: Wildcards) -> list[str]:
        """Return what a job writes after its archives: where it is missing, they may be those of before."""
        if not self.study.library_families:
            return []
        if not self.study.keep_activations:
            return self.cards(job)
        cells = paths.cells(job.model, self.model(job).measured, self.study.datasets_of[job.model])
        blocks = [paths.layers(*block) for block in self.study.blocks_of(job.model)]
        return [paths.MEASURED_MARK.format(**cell, **block) for cell in cells for block in blocks]

    def released(self, job: Wildcards) -> list[str]:
        """Return the notes that every reader has read the downloaded weights of its checkpoint."""
        return [
            paths.RELEASE_MARK.format(model=job.model, checkpoint=checkpoint, reader=reader)
            for checkpoint in self.model(job).measured
            for reader in self.study.readers(job.model, checkpoint)
        ]

    def facts(self, job: Wildcards) -> object:
        return {
            "study": self.study.name,
            "checkpoints": {name: one.same_as for name, one in self.model(job).checkpoints.items()},
            "gone": self.gone(job),
            "datasets": self.study.datasets_of[job.model],
            "blocks": self.study.blocks_of(job.model),
            "metrics": self.study.metrics,
            "own_metrics": self.own_facts,
            "faults": known_faults(self.study.issues, job.model),
            "shown": self.shown(job),
        }

    def gone(self, job: Wildcards) -> list[str]:
        """Return the checkpoints of a local run that were deleted since they were measured."""
        return [name for name, checkpoint in self.model(job).checkpoints.items() if checkpoint.gone]

    def statistics_megabytes(self, job: Wildcards) -> int:
        """Estimate the archives of a model: at most two megabytes a site of a cell."""
        model = self.model(job)
        cells = len(model.measured) * len(self.study.datasets_of[model.name])
        return ARCHIVE_MEGABYTES * cells * (model.blocks + 2)

    def megabytes(self, job: Wildcards) -> int:
        return 1000 + self.statistics_megabytes(job)

    def seconds(self, job: Wildcards, threads: int) -> float:
        return self.statistics_megabytes(job)  # at a megabyte a second, far slower than it is

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.tables.gather import gather
        from lmshape.tables.shapes import shapes

        model = self.model(job)
        gather(
            list(map(Path, self.statistics(job))),
            list(map(Path, self.cards(job))),
            Path(job.fill(paths.MODEL_METRICS)),
            study=self.study.name,
            metrics=list(self.study.metrics),
            own=self.own_path,
            lock=model.lock,
            gone=self.gone(job),
            same=model.same,
        )
        shown = list(map(Path, self.shown(job)))
        shapes(shown, shapes_folder(job.model), study=self.study.name, same=model.same)


def shapes_folder(model: str) -> Path:
    """Return the folder of a model's spectra and single rows."""
    return Path(paths.MODEL_SHAPES.format(model=model, table="")).parent


def metric_files(study: Study) -> list[str]:
    """Return the table of metrics of each model."""
    return [paths.MODEL_METRICS.format(model=name) for name in study.models]


class Tables(Rule):
    """The tidy tables of the study."""

    usual = 10.0
    code = ("lmshape.tables.study_tables.combine", "lmshape.tables.shapes.combine_shapes")
    log_file = "results/logs/tables.log"
    writes = paths.table_files(
        "metrics", "checkpoints", "profiles", "phases", "contrasts", "audit", *SHAPE_TABLES
    )

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        shapes = product(self.study.models, SHAPE_TABLES)
        return {
            "metrics": metric_files(self.study),
            "shapes": [paths.MODEL_SHAPES.format(model=name, table=table) for name, table in shapes],
        }

    def facts(self, job: Wildcards) -> object:
        return [self.groups, self.study.unstable]

    @property
    def groups(self) -> dict[str, str]:
        """Name of a model → recipe that it shares with models that differ in their seed alone."""
        return {name: model.recipe for name, model in self.study.models.items() if model.recipe}

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.tables.shapes import combine_shapes
        from lmshape.tables.study_tables import combine

        files = list(map(Path, metric_files(self.study)))
        combine(files, paths.TABLES_FOLDER, groups=self.groups, unstable=self.study.unstable)
        combine_shapes([shapes_folder(name) for name in self.study.models], paths.TABLES_FOLDER)


class Spikes(Rule):
    """The spikes of the losses of all runs, and what moves before them."""

    usual = 10.0
    code = ("lmshape.tables.loss_spikes.write_spikes",)
    log_file = "results/logs/spikes.log"
    writes = paths.table_files("spikes", "warnings", "alarms", "before_spikes")

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        logs = self.study.loss_logs.values()
        return {
            "metrics": paths.METRICS_TABLE,
            "losses": trained_files(self.study, "loss.csv"),
            "geometry": trained_files(self.study, "geometry.csv", probed=True),
            "logs": [str(file) for log in logs for file in log.files],
        }

    def sources(self) -> dict[str, dict[str, Path]]:
        """Return losses of the study's runs, losses of others' logs, and geometry of both, by run."""
        logs = self.study.loss_logs.items()
        probed = by_run(trained_files(self.study, "geometry.csv", probed=True))
        return {
            "losses": by_run(trained_files(self.study, "loss.csv")),
            "logs": {name: Path(log.losses) for name, log in logs},
            "geometry": probed | {name: Path(log.geometry) for name, log in logs if log.geometry},
        }

    def facts(self, job: Wildcards) -> object:
        return [self.study.name, self.sources(), list(self.study.datasets)]

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.tables.loss_spikes import write_spikes

        for name in ("loss.csv", "geometry.csv"):
            for file in trained_files(self.study, name):
                check_digest(Path(file))
        write_spikes(
            paths.TABLES_FOLDER,
            study=self.study.name,
            **self.sources(),
            metrics=Path(paths.METRICS_TABLE),
            datasets=list(self.study.datasets),
        )


class TruncationTables(Rule):
    """The tables of all truncations."""

    code = ("lmshape.truncation.tables.write_truncation_tables",)
    log_file = "results/logs/truncation_tables.log"
    writes = paths.table_files("truncation", "truncation_ranks")

    @property
    def truncations(self) -> dict[str, list[Checkpoint]]:
        """Files of all truncations → the checkpoints whose rows they give."""
        cells = [cell for model in self.study.models for cell in self.study.truncated(model).items()]
        return {Wildcards.of_cell(cell).fill(paths.TRUNCATION_FILE): those for cell, those in cells}

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"truncations": list(self.truncations), "metrics": paths.METRICS_TABLE}

    def facts(self, job: Wildcards) -> object:
        equal = (one for those in self.truncations.values() for one in those if one.same_as)
        return [self.study.name, *(one.name for one in equal)]

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.truncation.tables import write_truncation_tables

        files = {Path(file): those for file, those in self.truncations.items()}
        write_truncation_tables(files, Path(paths.METRICS_TABLE), paths.TABLES_FOLDER, study=self.study.name)


class Claims(Rule):
    """The published claims, tested on the study's numbers."""

    usual = 10.0
    code = ("lmshape.claims.decide_study", "lmshape.claims.claim")
    log_file = "results/logs/claims.log"
    writes = paths.table_files("claims")
    disk = LEAST_DISK_MEGABYTES

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {
            "metrics": metric_files(self.study),
            "tables": paths.table_files(*CLAIM_TABLES, formats=("parquet",)),
            "tokens": list(self.token_files.values()),
        }

    @property
    def token_files(self) -> dict[str, str]:
        """Model → file of the tokens of its first dataset, whose frequencies its loss is held against."""
        of = self.study.datasets_of
        first = {model: next(name for name in self.study.datasets if name in of[model]) for model in of}
        return {model: paths.TOKENS_FILE.format(model=model, dataset=name) for model, name in first.items()}

    @property
    def orders(self) -> dict[str, str]:
        """Datasets in the study's order, its text first, each with what its tokens are."""
        return {name: dataset.order for name, dataset in self.study.datasets.items()}

    def facts(self, job: Wildcards) -> object:
        """What is claimed counts as much as the code."""
        claims = CLAIMS_FILE.read_text(encoding="utf-8")
        return [list(self.orders.items()), self.study.unstable, claims]

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.claims import decide_study

        files = list(map(Path, metric_files(self.study)))
        tokens = {model: Path(file) for model, file in self.token_files.items()}
        decide_study(
            files, paths.TABLES_FOLDER, orders=self.orders, token_files=tokens, unstable=self.study.unstable
        )
