"""What all rules share: the validated study, the library, and what a wildcard may be."""

import dataclasses
import gc
import hashlib
import inspect
import json
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile

# A large plan is millions of objects that stay: looking for garbage among them takes a tenth of its time.
gc.set_threshold(200_000, 50, 50)

# The library is imported from this repository, by Snakemake and by every job, installed or not; jobs use the
# Python that runs Snakemake, unless `--sdm conda` gives them one. The prefix and not the environment carries the
# library's path, since Snakemake takes PYTHONPATH from jobs in a conda environment.
REPOSITORY = Path(workflow.basedir)
LIBRARY = str(REPOSITORY / "workflow")
sys.path.insert(0, LIBRARY)
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
)
# `set`: a prefix takes the place of Snakemake's own, and without it `… | tee {log}` succeeds whatever fails.
# The tokenizers library counts its threads by a variable that Snakemake does not set.
shell.prefix(
    f"set -euo pipefail; export PYTHONPATH={shlex.quote(LIBRARY)}; "
    "export RAYON_NUM_THREADS=${{OMP_NUM_THREADS:-1}}; "  # Snakemake formats it
)

from lmshape import paths
from lmshape.site import named_layers
from lmshape.study.cluster import NO_PARTITION
from lmshape.study.cluster import check_profile
from lmshape.study.costs import extraction_megabytes
from lmshape.study.costs import extraction_seconds
from lmshape.study.costs import gpus_that_hold
from lmshape.study.costs import measuring_megabytes
from lmshape.study.costs import measuring_seconds
from lmshape.study.costs import minutes_for
from lmshape.study.costs import pretraining_megabytes
from lmshape.study.costs import pretraining_seconds
from lmshape.study.costs import threads_of
from lmshape.study.costs import wants_gpu
from lmshape.study.costs import weights_of
from lmshape.errors import InputError
from lmshape.metrics.families import METRIC_FAMILIES
from lmshape.metrics.families import OUTPUT_FAMILY
from lmshape.metrics.families import OWN_FAMILY
from lmshape.figures import FIGURES
from lmshape.fingerprint import code_fingerprint
from lmshape.study.costs import gpu_count
from lmshape.hub.budget import clear_unneeded
from lmshape.hub.budget import forget_deleted
from lmshape.hub.budget import mark
from lmshape.hub.integrity import issues_of
from lmshape.hub.integrity import read_issues
from lmshape.hub.passing import failed_mark
from lmshape.hub.passing import forget_rooms
from lmshape.hub.passing import unmeasured_mark
from lmshape.study.plan import activation_bytes
from lmshape.study.plan import checkpoint_megabytes
from lmshape.study.registry import find_file
from lmshape.pages.report import CONFIG as CONFIG_VARIABLE
from lmshape.writing import VARIABLE as SCRATCH_VARIABLE
from lmshape.study.study import Cell
from lmshape.study.study import load_study
from lmshape.texts.tokenizer import tokenizer_files as files_of_tokenizer
from lmshape.study.costs import truncation_megabytes
from lmshape.study.costs import truncation_seconds
from lmshape.study.costs import truncation_wants_gpu
from lmshape.store.weights import checkpoint_files

AT_ONCE = {
    "admissions": 1,  # in the order of their priorities
    "downloads": 2,
    "gpu": max(1, gpu_count()),
}  # jobs, unless `--resources downloads=…` says otherwise


def ask_hub(name, entry):
    """Make the lock of a model whose checkpoints only the hub can tell, so that the study can be planned."""
    from lmshape.hub.resolve import make_lock

    print(f"Asking the hub for the checkpoints of {name} …", file=sys.stderr)
    issues = read_issues(known_issues_file())
    return make_lock(Path(paths.LOCK.format(model=name)), name, entry, issues=issues)


def known_issues_file():
    named = config.get("registry", {}).get("known_issues", "config/known_issues.yaml")
    return find_file(named, root=Path.cwd())


# Not while another Snakemake runs this study, not even for a dry run: its jobs still need these.
if workflow.is_main_process and not list(Path(".snakemake/locks").glob("*.lock")):
    forget_deleted(Path.cwd())
    forget_rooms(Path.cwd())

try:
    study = load_study(config, Path.cwd(), ask=ask_hub)
except InputError as error:
    raise WorkflowError(str(error)) from None

# Jobs inherit it: neither a parameter nor an option of theirs, since no result depends on it.
os.environ[SCRATCH_VARIABLE] = study.scratch
os.environ[CONFIG_VARIABLE] = json.dumps(
    config
)  # for the report, which reads the workflow once more


def as_in_profile(name):
    """A default resource as the profile spells it; None where it has none."""
    found = (workflow.resource_settings.default_resources or {}).get(name)
    return None if found is None or found.raw is None else str(found.raw)


def of_profile(name):
    """A default resource of the profile: a name in two pairs of quotes is that name."""
    found = as_in_profile(name)
    return None if found is None else found.strip("'\"")


GPU_GIGABYTES = int(
    of_profile("gpu_gigabytes") or 40
)  # memory of one GPU of the cluster

# A profile that names partitions is a cluster's: its jobs run elsewhere, on machines of which this one knows nothing.
ON_CLUSTER = of_profile("slurm_partition") is not None

# None where the cluster has no GPUs for us.
GPU_PARTITION = of_profile("gpu_partition")
if GPU_PARTITION == NO_PARTITION:
    GPU_PARTITION = None

if ON_CLUSTER and workflow.is_main_process:
    try:
        check_profile(
            {
                name: as_in_profile(name)
                for name in ("slurm_account", "slurm_partition", "gpu_partition")
            }
        )
    except InputError as error:
        raise WorkflowError(str(error)) from None


for resource, most in AT_ONCE.items():
    if not (ON_CLUSTER and resource == "gpu"):  # there the partition bounds them
        workflow.global_resources.setdefault(resource, most)


def one_of(names):
    """A regular expression for names that may hold dots; for no names, one that matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=one_of(study.models),
    dataset=one_of(study.datasets),
    text=one_of(study.texts),
    run=one_of(study.pretraining.runs if study.pretraining else []),
    figure=one_of(FIGURES),
    checkpoint=r"[^/]+",
    first=r"\d+",
    last=r"\d+",


def flags(**options):
    """Spell options as the command line takes them; None is left out, a list is given again and again."""
    words = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                parts = one if isinstance(one, tuple) else [one]
                words += [
                    f"--{name.replace('_', '-')}",
                    *(shlex.quote(str(part)) for part in parts),
                ]
    return " ".join(words)
