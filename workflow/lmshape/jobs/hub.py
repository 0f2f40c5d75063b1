"""Jobs of published training runs: locks, and weights while a job reads them."""

from __future__ import annotations

import json
import logging
import os
import sys
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

from lmshape import paths
from lmshape.errors import InputError
from lmshape.hub.budget import READ_MARK, Reservation, clear_unneeded, forget_readers, release, reserve
from lmshape.hub.integrity import Issue, issues_of
from lmshape.hub.lock import Lock
from lmshape.hub.published import FACTS
from lmshape.jobs.rule import LEAST_DISK_MEGABYTES, Files, Given, Rule, Wildcards
from lmshape.jobs.texts import RUN_FILES
from lmshape.receipt import foreign_files, read_told, write_receipt
from lmshape.schema import Yaml
from lmshape.study.costs import checkpoint_megabytes
from lmshape.study.models import Model
from lmshape.study.study import Study


def log_to_stderr() -> None:
    """Show in the job's log why it waits, or asks again."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name in ("huggingface_hub", "httpx2"):  # what they retry is told once, by lmshape.hub
        logging.getLogger(name).setLevel(logging.ERROR)


DOWNLOAD_BYTES = 5e7  # per second: a usual connection of an institute
MOST_XET_MEGABYTES = 15_000  # that hf_xet was seen to take with its defaults
PLAN_VARIABLE = "LMSHAPE_PLAN"  # holds what `spell_plans` says in the process that has planned the jobs


def spell_plans(study: Study, folder: Path) -> str:
    """Spell by which checkpoints and shape the jobs of each published run are planned that its lock may change.

    Those of studies in other folders stay beside them. Compressed, since a variable of the environment holds 128 kB at
    most.
    """
    plans = {name: _plan(one) for name, one in study.models.items() if one.unverified}
    spelt = json.dumps({**_spelt_plans(), str(folder): plans})
    return b64encode(zlib.compress(spelt.encode())).decode()


def _spelt_plans() -> dict[str, dict[str, Any]]:
    spelt = os.environ.get(PLAN_VARIABLE, "")
    return json.loads(zlib.decompress(b64decode(spelt))) if spelt else {}


def _plan(model: Model) -> dict[str, Any]:
    taken = {name: one.same_as for name, one in model.checkpoints.items()}
    return {"checkpoints": taken, **{name: getattr(model, name) for name in FACTS}}


def check_plan(model: Model) -> None:
    """Refuse to download for a plan that was made before the hub was asked, and has become another one.

    Raises
    ------
    InputError
        Naming what is chosen, or shaped, otherwise.
    """
    found = _plan(model)
    planned = _spelt_plans().get(str(Path.cwd()), {}).get(model.name, found)
    changes = [f"`{key}` is {found[key]}, not {planned[key]}" for key in FACTS if found[key] != planned[key]]
    before, after = planned["checkpoints"], found["checkpoints"]
    for verb, names, others in (("without", before, after), ("with", after, before)):
        if differing := [name for name in names if name not in others]:
            changes.append(f"{verb} {', '.join(differing)}")
    for name, equal in after.items():
        if before.get(name, equal) != equal:
            changes.append(f"{name} equals {equal}" if equal else f"{name} differs from {before[name]}")
    if changes:
        raise InputError(
            f"`{model.name}`: the hub's answer changes the plan: {'; '.join(changes)}. Nothing was "
            "downloaded for it. Run the same command again."
        )


class Resolve(Rule):
    """The lock of a model: commit and weights behind each of its checkpoints."""

    stage = "downloads"
    brings_weights = True
    code: tuple[str, ...] = ("lmshape.hub.resolve",)
    log_file = "results/logs/resolve/{model}.log"
    writes: Sequence[str] = (paths.LOCK,)
    memory_megabytes = 500
    time_minutes = 60
    disk = LEAST_DISK_MEGABYTES
    rank = 200

    def jobs(self) -> Iterator[Wildcards]:
        return (Wildcards(model=name) for name, model in self.study.models.items() if model.on_hub)

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"unasked": job.fill(paths.UNASKED)}

    def facts(self, job: Wildcards) -> object:
        """The commits of a lock stay whatever of this changes; another repository or spelling makes a new lock."""
        return self.model(job).entry

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.hub.integrity import summary
        from lmshape.hub.resolve import make_lock

        log_to_stderr()
        model = self.model(job)
        lock = make_lock(
            Path(job.fill(paths.LOCK)),
            model.name,
            model.entry,
            issues=self.study.issues,
            choice=model.choice,
        )
        print(summary(lock))


class FetchTokenizer(Resolve):
    """The tokenizer of a published run."""

    code = ()
    log_file = "results/logs/fetch_tokenizer/{model}.log"
    writes: Sequence[str] = (paths.TOKENIZER,)
    rank = 150

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"lock": job.fill(paths.LOCK)}

    def facts(self, job: Wildcards) -> object:
        return None

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.hub.transfer import bring_files

        log_to_stderr()
        model, lock = self.model(job), job.fill(paths.LOCK)
        check_plan(model)
        if model.lock is None or model.lock.tokenizer is None:
            raise InputError(
                f"`{lock}` names no tokenizer: its repository has none. Give the repository that does as "
                "`tokenizer` in the registry of models, then `lmshape lock --update`."
            )
        bring_files(model.lock.tokenizer, Path(job.fill(paths.TOKENIZER)))


class Download(FetchTokenizer):
    """The weights of a checkpoint, within the disk quota.

    The folder stays behind as an empty shell (config.json and a receipt) once all readers have read the weights, so
    that weights that are downloaded once more, for a new dataset, run no finished cell again. `release` brings the
    download back: every cell that is extracted runs it again, and it needs `STAGED`, which exists while cells wait.
    """

    log_file = "results/logs/download/{model}/{checkpoint}.log"
    writes = (paths.WEIGHTS, paths.STAGED)
    time_minutes = 720
    rank = 5
    alone = True

    def jobs(self) -> Iterator[Wildcards]:
        for job in super().jobs():
            for checkpoint in self.model(job).measured:
                yield Wildcards(model=job.model, checkpoint=checkpoint)

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        """Return the lock: a reason to look at the job that makes it where it does not say what is downloaded."""
        file = job.fill(paths.LOCK)
        return {"lock": file if job.checkpoint in self.model(job).unasked else self.ancient(file)}

    def facts(self, job: Wildcards) -> object:
        """Count the updates of the lock that found other weights under this name; a change runs its cells again."""
        return self.model(job).checkpoints[job.checkpoint].revised

    def threads(self, job: Wildcards) -> int:
        """None: a download that waits for disk space must not hold the core of the extraction that frees it."""
        return 0

    def megabytes(self, job: Wildcards) -> int:
        """Count what Xet holds of a file before it is written: all of it, up to 15 GB."""
        held = min(checkpoint_megabytes(self.model(job), job.checkpoint), MOST_XET_MEGABYTES)
        return self.memory_megabytes + (held if find_spec("hf_xet") and self.study.transfer != "http" else 0)

    def disk_megabytes(self, job: Wildcards) -> int:
        return LEAST_DISK_MEGABYTES + checkpoint_megabytes(self.model(job), job.checkpoint)

    @property
    def most_megabytes(self) -> float:
        budget = self.study.disk_budget_bytes
        return inf if budget is None or self.study.keep_weights else budget / 1e6

    def usual_seconds(self, job: Wildcards, threads: int) -> float:
        return self.usual + self.disk_megabytes(job) * 1e6 / DOWNLOAD_BYTES

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.hub.transfer import bring_files, cached_bytes

        log_to_stderr()
        model, study, folder = self.model(job), self.study, job.fill(paths.WEIGHTS)
        check_plan(model)
        one = model.lock.named(job.checkpoint) if model.lock else None
        if one is None or not one.asked:
            raise InputError(
                f"`{job.fill(paths.LOCK)}` does not list the files of {job.checkpoint}, since no study took it when "
                f"the hub was asked. Ask the hub with `lmshape lock {model.name}`, and run the same command again."
            )
        if study.disk_budget_bytes is not None and study.weights_in == "study":
            size = sum(file.bytes for file in one.files) - cached_bytes(one)
            readers = study.readers(job.model, job.checkpoint)
            wanted = Reservation(folder=folder, weights_bytes=size, readers=readers)
            reserve(wanted, budget=study.disk_budget_bytes, keeps=study.keep_weights)
        forget_readers(Path(folder))
        bring_files(one, Path(folder), weights_in=study.weights_in, transfer=study.transfer)


class Release(Rule):
    """One reader's note that it has read the weights of a checkpoint; after the last one they are deleted."""

    stage = "downloads"
    brings_weights = True
    log_file = "results/logs/release/{model}/{checkpoint}/{reader}.log"
    writes = (paths.RELEASE_MARK,)
    memory_megabytes = 100
    time_minutes = 5
    disk = LEAST_DISK_MEGABYTES
    rank = 15

    def jobs(self) -> Iterator[Wildcards]:
        for name, model in self.study.models.items():
            for checkpoint in model.measured if model.on_hub else ():
                for reader in self.study.readers(name, checkpoint):
                    yield Wildcards(model=name, checkpoint=checkpoint, reader=reader)

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        dataset, _, truncation = job.reader.partition(paths.READER_SEPARATOR)
        names = {"model": job.model, "checkpoint": job.checkpoint, "dataset": dataset}
        result = paths.TRUNCATION_FILE if truncation else paths.LOSS_CARD
        return {"staged": job.fill(paths.STAGED), "read": result.format(**names)}

    def facts(self, job: Wildcards) -> object:
        return job.fill(paths.WEIGHTS)

    def run(self, job: Wildcards, given: Given) -> None:
        folder, lock = Path(job.fill(paths.WEIGHTS)), self.model(job).lock
        told, locked = read_told(folder), lock and lock.named(job.checkpoint)
        if locked and "files" not in told and told.get("commit") == locked.commit:  # of an older lmshape
            write_receipt(folder, files={Path(file.path).name: file.bytes for file in locked.files})
        readers = self.study.readers(job.model, job.checkpoint)
        release(folder, job.reader, of=readers, keep=self.study.keep_weights)


def lock_aloud(path: Path, name: str, entry: Mapping[str, Yaml], **told: Any) -> Lock:
    """Make the lock of a model that cannot be planned without one; see `lmshape.hub.resolve.make_lock`.

    A name of two parts in a study, `runs/my-run`, is a repository unless there is such a folder. Without an entry in
    the registry, and so without a `kind`, it may be a folder that is misspelt or lies elsewhere.
    """
    from lmshape.hub.resolve import make_lock

    repository = entry["repository"]
    whose = (
        name if "kind" in entry else f"{name}; there is no folder {repository} in {path.parents[2].resolve()}"
    )
    print(f"Asking the hub for the checkpoints of {whose} …", file=sys.stderr)
    return make_lock(path, name, entry, **told)


def mark_unasked(study: Study, root: Path) -> None:
    """Date a file of each published model after its lock if the study takes a checkpoint that has no files there.

    Snakemake compares dates alone where the lock was not made by its own job, but by `lmshape lock`, say.
    """
    for name, model in study.models.items():
        if not model.on_hub:
            continue
        mark = root / paths.UNASKED.format(model=name)
        if not mark.exists():
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            os.utime(mark, (0, 0))
        if model.unasked:
            mark.touch()


def refuse_foreign_files(study: Study, root: Path) -> None:
    """Refuse folders of downloads, tokenizers and runs with files of the user that Snakemake deletes before a job.

    Raises
    ------
    InputError
        Naming the first such folder, and a file in it.
    """
    ours = (READ_MARK, ".snakemake_timestamp")  # Snakemake dates the folders of its outputs
    emptied = {Path(paths.PRETRAINED_TOKENIZER): "the tokenizer of the runs of `pretraining`"}
    emptied = emptied if study.trained else {}
    runs = {
        Path(paths.PRETRAINED.format(run=run)): f"the run {run} of `pretraining`" for run in study.trained
    }
    for model in study.models.values():
        if model.on_hub:
            emptied[model.tokenizer] = f"the tokenizer of `{model.name}`"
            emptied |= {one.folder: f"{one.name} of `{model.name}`" for one in model.measured.values()}
    for folder, what in (emptied | runs).items():
        place = f"`{folder}` is where {what} will lie, and"
        if (root / folder).is_symlink():
            raise InputError(
                f"{place} is a link, which the new folder would replace. Put the folder itself there, or make "
                f"`{folder.parent}` the link, and run again."
            )
        told = read_told(root / folder)
        # of an older lmshape, whose runs had no receipt
        if "files" not in told and (told or (root / folder / "summary.json").is_file()):
            continue
        foreign = [path for path in foreign_files(root / folder, told) if not path.name.startswith(ours)]
        if folder in runs:  # notes of the user stay there
            foreign = [path for path in foreign if path.name in ("model.safetensors", *RUN_FILES)]
        if foreign:
            raise InputError(
                f"{place} holds {foreign[0].relative_to(root / folder)}, which lmshape did not write there in this "
                "form. Move it elsewhere, and run again."
            )


def delete_unneeded_weights(study: Study, root: Path) -> None:
    """Delete downloaded weights of checkpoints that the study no longer has, which would hold its disk quota."""
    if not study.keep_weights:
        needed = {one.folder for model in study.models.values() for one in model.measured.values()}
        for folder in clear_unneeded(root, needed):
            print(f"Deleted downloaded weights that the study does not have: {folder}")


def known_faults(issues: tuple[Issue, ...], model: str) -> list[str]:
    """Return the known faults of a model: one that becomes known changes verdicts in the tables."""
    return [f"{fault.verdict} {sorted(fault.steps)} {fault.reason}" for fault in issues_of(issues, model)]
