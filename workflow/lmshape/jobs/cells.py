"""Jobs of a cell, which is a model, a checkpoint and a dataset: extract, measure, both in one, truncate."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lmshape import paths
from lmshape.digest import check_digest
from lmshape.geometry.arrays import Device
from lmshape.heap import keep_freed_memory
from lmshape.jobs.machine import Machine, free_megabytes
from lmshape.jobs.rule import ARCHIVE_MEGABYTES, LEAST_DISK_MEGABYTES, Files, Given, Rule, Wildcards
from lmshape.metrics import skdim
from lmshape.metrics.block import families_code, family_code, measure_block
from lmshape.metrics.registry import FINAL_FAMILY, OWN_FAMILY
from lmshape.store.weights import checkpoint_files, has_weights, weights_key
from lmshape.study import costs
from lmshape.study.models import Model
from lmshape.study.study import Study
from lmshape.truncation.ranks import Truncating
from lmshape.writing import replaced_when_whole, working_folder

if TYPE_CHECKING:
    from lmshape.models.opened import Opening
    from lmshape.store.activations import HeldActivations


class WeightsReader(Rule):
    """A job that reads the weights of a checkpoint."""

    submitted = True
    rank = 10

    def weights(self, job: Wildcards) -> Files:
        """Return the files whose change makes a checkpoint another one."""
        checkpoint, model = self.study.checkpoint(job.cell), self.model(job)
        folder = checkpoint.folder
        if model.on_hub:
            # Snakemake does not look at jobs behind a download that has its own reason, unless this is one for them
            return str(folder) if checkpoint.revised else self.ancient(str(folder))
        if model.pretraining:
            return [f"{folder}/model.safetensors"]
        if checkpoint.gone:  # without its input no job makes the cell again, and its files count as they are
            return f"{folder}/model.safetensors"
        return [self.ancient(str(path)) for path in checkpoint_files(folder)]  # `facts` has their content

    def content(self, job: Wildcards) -> str:
        """Return a key of the weights of a local run; empty for those that the workflow makes or downloads."""
        model = self.model(job)
        if model.on_hub or model.pretraining:
            return ""
        folder = self.study.checkpoint(job.cell).folder
        cards = paths.loss_cards(model.name, [job.checkpoint], self.study.datasets_of[model.name])
        return weights_key(folder, Path(job.fill(paths.SEEN_WEIGHTS)), map(Path, cards))

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"weights": self.weights(job), "tokens": job.fill(paths.TOKENS_FILE)}

    def attributes(self, job: Wildcards) -> dict[str, str | int | float]:
        """Return what the files of a cell say of it; of the hub's checkpoints the receipt says where they are from."""
        model, checkpoint = self.model(job), self.study.checkpoint(job.cell)
        return {
            "model": model.name,
            "architecture": model.architecture,
            "repository": model.entry.get("repository", str(model.folder)),
            "revision": checkpoint.name,
            "commit": "",
            "checkpoint": checkpoint.name,
            "step": checkpoint.step,
            "tokens_seen": checkpoint.tokens_seen,
            "dataset": job.dataset,
            "width": model.width,
            "vocabulary": model.vocabulary,
            "context": model.context or 0,
        }

    def facts(self, job: Wildcards) -> object:
        model, checkpoint = self.model(job), self.study.checkpoint(job.cell)
        return {
            "folder": str(checkpoint.folder),
            "weights": self.content(job),
            "revised": checkpoint.revised,
            "attributes": self.attributes(job),
            "kind": model.kind,
            "shape": [model.blocks, model.width, model.vocabulary],
            "dtype": self.study.extraction.dtype,
            "remote_code": model.remote_code,
        }

    def opening(self, job: Wildcards, given: Given) -> Opening:
        """Return how the checkpoint is opened."""
        from lmshape.models.opened import Opening

        model = self.model(job)
        return Opening(
            **asdict(self.study.extraction),
            kind=model.kind,
            threads=given.threads,
            gpus=given.gpus,
            blocks=model.blocks,
            width=model.width,
            vocabulary=model.vocabulary,
            remote_code=model.remote_code,
        )

    def whole_weights(self, job: Wildcards) -> Path:
        """Return the folder of the weights; those that have changed since they were downloaded or made are refused."""
        folder = self.study.checkpoint(job.cell).folder
        model = self.model(job)
        if (model.on_hub or model.pretraining) and has_weights(folder):
            for file in checkpoint_files(folder):
                check_digest(file)
        return folder

    def threads(self, job: Wildcards) -> int:
        return costs.threads_of(self.model(job))

    def flops(self, model: Model) -> float:
        """Return the floating-point operations of a job: whether it is worth a GPU of a cluster."""
        return costs.extraction_flops(model, self.study.sampling)

    def gpus(self, job: Wildcards) -> int:
        """On this machine one if there is one; on a cluster those that hold the model, if it is worth them."""
        model, device = self.model(job), self.study.extraction.device
        if device == "cpu":
            return 0
        if device == "auto" and not self.machine.on_cluster:
            return int(self.machine.gpus > 0)
        if device == "auto" and not (self.machine.gpu_partition and costs.wants_gpu(self.flops(model))):
            return 0
        spread = self.machine.on_cluster and self.study.extraction.device_map == "auto"
        return costs.gpus_that_hold(model, self.study.extraction, self.machine.gpu_gigabytes) if spread else 1

    def on_gpu(self, job: Wildcards) -> bool:
        """Return whether the forward passes run on a GPU."""
        return self.gpus(job) > 0


class Extract(WeightsReader):
    """The activations of a cell, which stay, and its loss."""

    stage = "extraction"
    usual_share = 0.3
    code = ("lmshape.models.extract.extract", "lmshape.store.tokens.read_tokens")
    log_file = "results/logs/extract/{model}/{checkpoint}/{dataset}.log"
    writes = (paths.ACTIVATIONS, paths.LOSS_CARD)

    def jobs(self) -> Iterator[Wildcards]:
        return map(Wildcards.of_cell, self.study.cells() if self.study.keep_activations else ())

    def megabytes(self, job: Wildcards) -> int:
        return costs.extraction_megabytes(self.model(job), self.study.extraction, on_gpu=self.on_gpu(job))

    def seconds(self, job: Wildcards, threads: int) -> float:
        model, on_gpu = self.model(job), self.on_gpu(job)
        return costs.extraction_seconds(model, self.study.sampling, threads=threads, on_gpu=on_gpu)

    def disk_megabytes(self, job: Wildcards) -> int:
        activations = costs.activation_bytes(self.model(job), self.study.sampling.most_tokens)
        return LEAST_DISK_MEGABYTES + activations // 10**6

    def run(self, job: Wildcards, given: Given) -> None:
        self.extract(job, given, Path(job.fill(paths.ACTIVATIONS)), Path(job.fill(paths.LOSS_CARD)))

    def extract(
        self, job: Wildcards, given: Given, activations: Path, losses: Path, held_bytes: int = 0
    ) -> Path | HeldActivations:
        """Write the loss card of a cell and its activations, or hold these in memory."""
        os.environ["HF_HUB_OFFLINE"] = "1"  # all that is read is on the disk
        from lmshape.hub.lock import read_receipt
        from lmshape.models.extract import extract
        from lmshape.store.tokens import read_tokens

        folder, tokens = self.whole_weights(job), read_tokens(job.fill(paths.TOKENS_FILE))
        return extract(
            folder,
            tokens,
            opening=self.opening(job, given),
            output=activations,
            loss_output=losses,
            attributes=self.attributes(job) | read_receipt(folder),
            seed=int(tokens.attributes["seed"]),
            mask_token_id=int(tokens.attributes["mask_token_id"]),
            held_bytes=held_bytes,
        )


class Measure(Rule):
    """The statistics of a block of layers: what every metric of the library can be computed from.

    One job measures all families, so that a study is few, long jobs. Archives are updated: a family that is added, or
    whose code has changed, is measured alone. `MEASURED_MARK` is written last and is no archive: without it, a job that
    failed runs again, although Snakemake restores the archives that it found.
    """

    stage = "measuring"
    submitted = True
    start_seconds = costs.MEASURING_START_SECONDS
    usual_share = 0.5
    log_file = "results/logs/measure/{model}/{checkpoint}/{dataset}/layers-{first}-{last}.log"
    rank = 20

    def jobs(self) -> Iterator[Wildcards]:
        for cell in self.study.cells() if self.study.keep_activations and self.families else ():
            for block in self.study.blocks_of(cell.model):
                yield Wildcards.of_cell(cell, **paths.layers(*block))

    @property
    def families(self) -> list[str]:
        """Families that the job measures."""
        return list(self.study.library_families)

    @property
    def rows(self) -> list[str]:
        """Choices of rows."""
        return sorted(self.study.rows)

    @property
    def rows_per_draw(self) -> int | None:
        """Rows of a draw that neighbor metrics use: the article's protocol takes all rows of its chunks."""
        sampling = self.study.sampling
        return sampling.rows_per_draw if sampling.protocol == "windows" else None

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"activations": job.fill(paths.ACTIVATIONS), "final": self.final(job) or []}

    def final(self, job: Wildcards) -> str:
        """Return the activations of the final checkpoint, where this is another and is compared with it; else ""."""
        final = self.model(job).final
        if FINAL_FAMILY not in self.families or job.checkpoint == final:
            return ""
        return replace(job, checkpoint=final).fill(paths.ACTIVATIONS)

    def outputs(self, job: Wildcards) -> list[str]:
        archives = [job.fill(paths.STATISTICS.replace("{family}", family)) for family in self.families]
        return [*archives, job.fill(paths.MEASURED_MARK)]

    @property
    def estimators(self) -> list[str]:
        """Names of the estimators of scikit-dimension that the study names."""
        return list(skdim.named(self.study.metrics))

    def facts(self, job: Wildcards) -> object:
        return [self.rows, self.rows_per_draw, self.estimators]

    def code_of(self, job: Wildcards) -> str:
        """Return the fingerprint of all families of the library, so that a family that goes runs nothing."""
        return families_code()

    def threads(self, job: Wildcards) -> int:
        return costs.threads_of(self.model(job))

    def megabytes(self, job: Wildcards) -> int:
        return costs.measuring_megabytes(self.model(job).width, self.study.sampling)

    def seconds(self, job: Wildcards, threads: int) -> float:
        first, last = job.layers
        return self.block_seconds(self.model(job), last - first + 2, threads)

    def block_seconds(self, model: Model, sites: int, threads: int, *, on_gpu: bool = False) -> float:
        """Estimate a block of a model by its sites."""
        study = self.study
        return costs.measuring_seconds(
            model.width,
            study.sampling,
            families=tuple(self.families),
            rows=study.rows,
            sites=sites,
            threads=threads,
            metrics=study.metrics,
            on_gpu=on_gpu,
        )

    def disk_megabytes(self, job: Wildcards) -> int:
        first, last = job.layers
        return LEAST_DISK_MEGABYTES + ARCHIVE_MEGABYTES * (last - first + 2)

    def run(self, job: Wildcards, given: Given) -> None:
        self.measure(job, Path(job.fill(paths.ACTIVATIONS)), job.layers)
        Path(job.fill(paths.MEASURED_MARK)).touch()

    def measure(
        self,
        job: Wildcards,
        activations: Path | HeldActivations,
        block: tuple[int, int],
        device: Device = None,
    ) -> None:
        """Write the archives of a block of layers that are not there, or not of this code and data."""
        final = self.final(job)
        keep_freed_memory()
        measure_block(
            activations,
            Path(job.fill(paths.STATISTICS_FOLDER)),
            families=self.families,
            first=block[0],
            last=block[1],
            rows=self.rows,
            rows_per_draw=self.rows_per_draw,
            own_metrics=self.own_path,
            skdim=self.estimators,
            device=device,
            final=Path(final) if final else None,
        )


class MeasureOwn(Measure):
    """The values of the user's own metrics: a job of their own, so that a change to their file runs no other family."""

    usual_share = 1.0
    log_file = "results/logs/measure_own/{model}/{checkpoint}/{dataset}/layers-{first}-{last}.log"

    @property
    def families(self) -> list[str]:
        return [OWN_FAMILY] if self.study.own_metrics else []

    @property
    def rows(self) -> list[str]:
        return sorted(row for row in self.study.rows if row != "one_per_type")

    def outputs(self, job: Wildcards) -> list[str]:
        return [job.fill(paths.STATISTICS.replace("{family}", OWN_FAMILY))]

    def facts(self, job: Wildcards) -> object:
        return [self.rows, str(self.own_path)]

    def code_of(self, job: Wildcards) -> str:
        """Return the fingerprint of what runs own metrics, and of the user's file."""
        return family_code(OWN_FAMILY, self.own_path)

    def run(self, job: Wildcards, given: Given) -> None:
        self.measure(job, Path(job.fill(paths.ACTIVATIONS)), job.layers)


class MeasureAll(Measure):
    """The statistics of all families, the user's own among them."""

    @property
    def families(self) -> list[str]:
        return list(self.study.measured_families)

    def code_of(self, job: Wildcards) -> str:
        own = OWN_FAMILY in self.families
        return super().code_of(job) + (family_code(OWN_FAMILY, self.own_path) if own else "")


class MeasureCell(Extract):
    """A cell in one process, where activations are not kept: it holds them in memory, or they pass through its scratch.

    What is measured of them is measured on the GPU that the network was on, where there is one.

    The loss card is written last and is not an archive: a job that failed runs again, although Snakemake restores the
    archives that it found.
    """

    stage = "measuring"
    usual_share = 0.4

    def __init__(self, study: Study, machine: Machine) -> None:
        super().__init__(study, machine)
        self.measuring = MeasureAll(study, machine)

    def jobs(self) -> Iterator[Wildcards]:
        return map(Wildcards.of_cell, () if self.study.keep_activations else self.study.cells())

    def kept_megabytes(self, job: Wildcards) -> int:
        return ARCHIVE_MEGABYTES * (self.model(job).blocks + 2)

    def layouts(self) -> dict[str, list[str]]:
        """Return the models by their number of layers: a rule's outputs, blocks of layers, must be the same for all."""
        found: dict[str, list[str]] = {}
        for name, model in self.study.models.items():
            found.setdefault(f"{model.blocks + 1}_layers", []).append(name)
        return found

    def archives(self, model: str) -> list[str]:
        """Return the archives of a cell of a model, its checkpoint and dataset as wildcards."""
        blocks = [paths.layers(*block) for block in self.study.blocks_of(model)]
        cell = {"model": "{model}", "checkpoint": "{checkpoint}", "dataset": "{dataset}"}
        return [
            paths.STATISTICS.format(**cell, family=family, **block)
            for family in self.measuring.families
            for block in blocks
        ]

    def outputs(self, job: Wildcards) -> list[str]:
        return [*map(job.fill, self.archives(job.model)), job.fill(paths.LOSS_CARD)]

    def facts(self, job: Wildcards) -> object:
        return [super().facts(job), self.measuring.facts(job)]

    def code_of(self, job: Wildcards) -> str:
        return super().code_of(job) + self.measuring.code_of(job)

    def held_bytes(self, job: Wildcards) -> int:
        """Bytes of activations that the job holds in memory; 0 where they pass through scratch."""
        study = self.study
        return costs.held_bytes(self.model(job), study.sampling, study.extraction, on_gpu=self.on_gpu(job))

    def megabytes(self, job: Wildcards) -> int:
        held = self.held_bytes(job) // 10**6
        return held + max(super().megabytes(job), self.measuring.megabytes(job))

    def disk_megabytes(self, job: Wildcards) -> int:
        held = self.held_bytes(job) > 0
        return LEAST_DISK_MEGABYTES + self.kept_megabytes(job) if held else super().disk_megabytes(job)

    def seconds(self, job: Wildcards, threads: int) -> float:
        model, on_gpu = self.model(job), self.on_gpu(job)
        measuring = self.measuring.block_seconds(model, model.blocks + 2, threads, on_gpu=on_gpu)
        return super().seconds(job, threads) + measuring

    def run(self, job: Wildcards, given: Given) -> None:
        losses = Path(job.fill(paths.LOSS_CARD))
        with working_folder(losses, "activations") as folder:
            card = folder / losses.name
            held_bytes = self.held_bytes(job) if free_megabytes() > self.megabytes(job) else 0
            activations = self.extract(job, given, folder / "activations.h5", card, held_bytes)
            from lmshape.models.opened import choose_device  # imports transformers, once the hub is off

            device = choose_device(self.opening(job, given)).device
            for block in self.study.blocks_of(job.model):
                self.measuring.measure(job, activations, block, device)
            with replaced_when_whole(losses) as partial:
                partial.write_bytes(card.read_bytes())


class Truncate(WeightsReader):
    """The loss of a decoder with only some directions of its residual stream."""

    stage = "truncation"
    usual_share = 0.3
    code = ("lmshape.truncation.truncate.truncate", "lmshape.store.tokens.read_tokens")
    log_file = "results/logs/truncate/{model}/{checkpoint}/{dataset}.log"
    writes = (paths.TRUNCATION_FILE,)
    disk = LEAST_DISK_MEGABYTES

    def jobs(self) -> Iterator[Wildcards]:
        for model in self.study.models:
            yield from map(Wildcards.of_cell, self.study.truncated(model))

    @property
    def truncating(self) -> Truncating:
        """Section `truncation` of the study."""
        assert self.study.truncating is not None  # the rule has jobs only where the study truncates
        return self.study.truncating

    def facts(self, job: Wildcards) -> object:
        truncating = self.truncating
        tried = [truncating.sequences, sorted(truncating.ranks or ()), sorted(truncating.removed or ())]
        return [super().facts(job), self.study.truncated_rows, tried]

    def flops(self, model: Model) -> float:
        rows = self.study.truncated_rows
        return costs.truncation_flops(model, self.study.sampling, self.truncating, rows=rows)

    def megabytes(self, job: Wildcards) -> int:
        return costs.truncation_megabytes(
            self.model(job),
            self.study.sampling,
            self.truncating,
            self.study.extraction,
            on_gpu=self.on_gpu(job),
        )

    def seconds(self, job: Wildcards, threads: int) -> float:
        return costs.truncation_seconds(
            self.model(job),
            self.study.sampling,
            self.truncating,
            rows=self.study.truncated_rows,
            threads=threads,
            on_gpu=self.on_gpu(job),
        )

    def run(self, job: Wildcards, given: Given) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        from lmshape.hub.lock import read_receipt
        from lmshape.store.tokens import read_tokens
        from lmshape.truncation.truncate import Trial, truncate

        truncating = self.truncating
        folder = self.whole_weights(job)
        truncate(
            folder,
            read_tokens(job.fill(paths.TOKENS_FILE)),
            opening=self.opening(job, given),
            output=Path(job.fill(paths.TRUNCATION_FILE)),
            attributes=self.attributes(job) | read_receipt(folder),
            trial=Trial(
                rows=self.study.truncated_rows,
                sequences=truncating.sequences,
                ranks=truncating.ranks,
                removed=truncating.removed,
            ),
        )
