"""What all rules share: the study, its jobs, and what a wildcard may be."""

import gc
import json
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# A large plan is millions of objects that stay: looking for garbage among them takes a tenth of its time.
gc.set_threshold(200_000, 50, 50)

# Jobs import the library from this repository, installed or not, or, deployed from a tag, the installed one. They use the
# Python that runs Snakemake, unless `--sdm conda` gives them one. The shell prefix carries the library's path, since
# Snakemake takes PYTHONPATH from jobs in a conda environment. It replaces Snakemake's own prefix, hence `set`; no job may ask.
sys.path.insert(0, str(REPOSITORY / "workflow"))
import lmshape

LIBRARY = str(Path(lmshape.__file__).parents[1])
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
)
shell.prefix(
    f"set -euo pipefail; exec < /dev/null; export PYTHONPATH={shlex.quote(LIBRARY).replace('{', '{{').replace('}', '}}')}; "
    "export RAYON_NUM_THREADS=${{OMP_NUM_THREADS:-1}}; "  # of `tokenizers`; Snakemake formats it
)

# Another workflow may import this one as a module, also several times. With `prefix:` all of its files lie in that folder,
# where its jobs work too.
PREFIX = workflow.modifier.path_modifier.prefix or ""
FOLDER = Path.cwd() / PREFIX


def job_command(arguments):
    """The shell line of a job, which works in the folder of the study."""
    elsewhere = (
        "" if FOLDER == Path.cwd() else f" --directory {shlex.quote(str(FOLDER))}"
    )
    stage, options = arguments.split(" ", 1)
    return f"python -m lmshape run {stage}{elsewhere} {options}"


from lmshape import paths
from lmshape.errors import InputError
from lmshape.hub.budget import forget_last_run
from lmshape.jobs import CONFIG_VARIABLE, Jobs, dated_results
from lmshape.jobs.hub import (
    PLAN_VARIABLE,
    delete_unneeded_weights,
    lock_aloud,
    mark_unasked,
    refuse_foreign_files,
    spell_plans,
)
from lmshape.jobs.machine import PROFILE_SETTINGS, machine_of
from lmshape.schema import read_keys
from lmshape.study.study import check_loss_logs, load_study
from lmshape.writing import VARIABLE as SCRATCH_VARIABLE

# The working directory's, else the embedded study's; none where a workflow that imports this one gives the keys.
if not workflow.modifier.skip_configfile:
    own = Path("config/config.yaml")
    configfiles = workflow.overwrite_configfiles or [
        own if own.exists() else REPOSITORY / own
    ]
    try:  # Snakemake names no line of what is wrong, and takes the last of a key that stands twice
        for file in configfiles:
            read_keys(Path(file))
    except InputError as error:
        raise WorkflowError(str(error)) from None
    if not workflow.overwrite_configfiles:

        configfile: str(configfiles[0])


# Not while another Snakemake runs this study, not even for a dry run: its jobs still need these.
if workflow.is_main_process and not list(Path(".snakemake/locks").glob("*.lock")):
    forget_last_run(FOLDER)

try:
    study = load_study(config, FOLDER, ask=lock_aloud)
    if workflow.is_main_process:
        check_loss_logs(study, FOLDER)
        refuse_foreign_files(study, FOLDER)
        mark_unasked(study, FOLDER)
    profile = workflow.resource_settings.default_resources or {}
    settings = {name: profile.get(name) for name in PROFILE_SETTINGS}
    machine = machine_of(
        {name: found and found.raw for name, found in settings.items()},
        check=workflow.is_main_process,
    )
except InputError as error:
    raise WorkflowError(str(error)) from None

jobs = Jobs(study, machine, ancient=ancient)
results_before = dated_results(FOLDER)

# Jobs inherit them: no result depends on the first, digests say what depends on the second, and downloads are refused
# where the third has become another one.
os.environ[SCRATCH_VARIABLE] = study.scratch
others = json.loads(os.environ.get(CONFIG_VARIABLE, "{}"))
os.environ[CONFIG_VARIABLE] = json.dumps({**others, str(FOLDER): config})
os.environ[PLAN_VARIABLE] = spell_plans(study, FOLDER)

# Jobs at once, unless `--resources downloads=…` says otherwise: on a workstation every job takes the first GPU that
# CUDA_VISIBLE_DEVICES shows it; GPUs of a cluster are bounded by its partition.
workflow.global_resources.setdefault("downloads", 2)
if not machine.on_cluster:
    workflow.global_resources.setdefault("gpu", 1)


def one_of(names):
    """A regular expression for names that may hold dots; for no names, one that matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=one_of(study.models),
    dataset=one_of(study.datasets),
    text=one_of(study.texts),
    run=one_of(study.pretraining.runs if study.pretraining else []),
    checkpoint=r"[^/]+",
    reader=r"[^/]+",
    first=r"\d+",
    last=r"\d+",
