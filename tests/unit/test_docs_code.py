"""What README, CONTRIBUTING and the pages tell a reader to type does what they say, and their links lead somewhere.

Snippets, files to write, commands, messages, and the tables that are written from the schemas.
"""

from __future__ import annotations

import ast
import doctest
import re
import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.main import get_command

from lmshape.cli import app
from lmshape.errors import InputError
from lmshape.figures.drawing import save
from lmshape.geometry import anisotropy, intrinsic_dimension
from lmshape.metrics import spectral
from lmshape.metrics.registry import own_metrics
from lmshape.schema import faults, schema_with_names
from lmshape.study.registry import REPOSITORY
from lmshape.study.study import load_study
from lmshape.tables.columns import COLUMNS, read_table

pytestmark = pytest.mark.slow

DOCS = REPOSITORY / "docs"
PAGES = [*DOCS.glob("*.md"), *DOCS.glob("*/*.md")]
README = REPOSITORY / "README.md"
CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"
CONFIG_README = REPOSITORY / "config/README.md"
EVERY_PAGE = [README, CONTRIBUTING, CONFIG_README, *PAGES]
SESSION = re.compile(r"^```pycon\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^```{code-block} \w+\n:caption: (\S+)\n\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```(?:bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"\blmshape ([a-z][a-z-]+)((?: +[^#|&\n]*)?)")
CONFIG_JSON = '{"model_type": "gpt_neox", "num_hidden_layers": 2, "hidden_size": 8, "vocab_size": 99}'
NO_TENSORS = (2).to_bytes(8, "little") + b"{}"  # a whole safetensors file


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize(
    ("page", "lines"), [(README, 250), (CONTRIBUTING, 50)], ids=["README", "CONTRIBUTING"]
)
def test_a_page_is_short(page: Path, lines: int) -> None:
    assert len(page.read_text().splitlines()) <= lines


@pytest.mark.parametrize("page", EVERY_PAGE, ids=relative)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:`]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_readme_gives_the_numbers_that_it_states() -> None:
    x = np.random.default_rng(0).standard_normal((4096, 10)) @ np.random.default_rng(1).standard_normal(
        (10, 128)
    )
    stated = [float(number) for number in re.findall(r"\(x\) +# ([\d.]+)", README.read_text())]
    assert stated == [round(anisotropy(x), 3), round(intrinsic_dimension(x), 2)]


def test_the_readme_enters_the_environment_before_its_first_command() -> None:
    commands = [line for block in SHELL.findall(README.read_text()) for line in block.splitlines()]
    first = next(n for n, line in enumerate(commands) if line.startswith(("lmshape ", "snakemake ")))
    assert any(line.startswith("source .venv/bin/activate") for line in commands[:first])


def test_the_study_and_the_run_of_the_readme_are_read(tmp_path: Path) -> None:
    study, run = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", README.read_text(), re.M | re.S))
    cells = load_study(study, tmp_path).cells()
    assert len(cells) == (18 + 20) * 2  # three steps of Pythia have equal weights, which are measured once
    assert not faults(run, schema_with_names("models", {}))


def test_the_tables_of_the_configuration_are_those_of_the_schemas() -> None:
    with_tables = runpy.run_path(str(DOCS / "keys.py"))["with_tables"]
    assert CONFIG_README.read_text() == with_tables(CONFIG_README.read_text()), "run: python docs/keys.py"


@pytest.fixture
def study_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose results/tables are the excerpt that the repository carries."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results/tables").symlink_to(DOCS / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if SESSION.search(page.read_text())], ids=relative)
def test_a_session_gives_what_the_page_shows(page: Path, study_folder: Path) -> None:
    names: dict[str, object] = {}
    for number, session in enumerate(SESSION.findall(page.read_text())):
        example = doctest.DocTestParser().get_doctest(session, names, f"{page.name}, {number}", str(page), 0)
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        told: list[str] = []
        runner.run(example, out=told.append, clear_globs=False)
        assert not runner.failures, "".join(told)
        names = example.globs


@cache
def files_to_write() -> dict[str, str]:
    """Files of the page on adding, by name; parts of one file come one after the other."""
    files: dict[str, str] = {}
    for name, text in FILE.findall((DOCS / "adding.md").read_text()):
        files[name] = files.get(name, "") + text
    return files


def test_the_metric_of_ones_own_is_one(tmp_path: Path) -> None:
    path = tmp_path / "my_metrics.py"
    path.write_text(files_to_write()["my_metrics.py"])
    (metric,) = own_metrics(path)
    assert (metric.name, metric.interval, metric.low, metric.high) == ("tail_share", "jackknife", 0, 1)
    from lmshape.metrics.own import load_own

    (own,) = load_own(path)
    x = np.random.default_rng(0).standard_normal((500, 10)) @ np.random.default_rng(1).standard_normal(
        (10, 30)
    )
    assert own.function(x) == pytest.approx(0, abs=1e-12)
    variances = np.sort(np.linalg.eigvalsh(np.cov(x[:, :12] ** 3, rowvar=False)))[::-1]
    assert own.function(x[:, :12] ** 3) == pytest.approx(variances[10:].sum() / variances.sum(), rel=1e-9)
    with pytest.raises(ValueError, match="all rows are equal"):
        own.function(np.ones((5, 3)))


def test_the_metric_of_lmshape_is_one() -> None:
    function, entry = (
        text
        for name, text in FILE.findall((DOCS / "adding.md").read_text())
        if name == "workflow/lmshape/metrics/spectral.py"
    )
    names = dict(vars(spectral))
    exec(compile(f"from __future__ import annotations\n{function}", "spectral", "exec"), names)
    metric = eval(entry.strip().rstrip(","), names)
    eigenvalues = np.array([[4.0, 2, 1, 1], [4, 2, 1, 0], [3, 2, 1, 1], [4, 1, 1, 1]])
    estimate = metric.compute({"eigenvalues": eigenvalues})
    assert estimate.value == 2
    assert estimate.low < 2 < estimate.high


def test_the_models_and_the_texts_make_a_study(tmp_path: Path) -> None:
    files = files_to_write()
    (tmp_path / "config").mkdir()
    for name in ("config/models.yaml", "config/datasets.yaml", "my_metrics.py"):
        (tmp_path / name).write_text(files[name])
    for step in (0, 100):
        folder = tmp_path / f"runs/my-run/checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(CONFIG_JSON)
        (folder / "model.safetensors").write_bytes(NO_TENSORS)
        (folder / "tokenizer.json").write_text("{}")
    (tmp_path / "my-text.txt").write_text("words of a text. " * 5000)
    study = load_study(yaml.safe_load(files["my-study.yaml"]), tmp_path)
    assert list(study.models["my-run"].checkpoints) == ["checkpoint-0", "checkpoint-100"]
    assert len(study.cells()) == 2 * 3
    assert "tail_share" in study.metrics
    with pytest.raises(InputError, match="my-published-run"):  # which the hub alone can tell
        load_study(
            {"models": ["my-published-run"], "datasets": ["mine-random"]} | {"registry": study_registry()},
            tmp_path,
        )


def study_registry() -> dict[str, str]:
    return yaml.safe_load(files_to_write()["my-study.yaml"])["registry"]


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    code = files_to_write()["workflow/lmshape/figures/loss_over_training.py"]
    module = ModuleType("loss_over_training")
    exec(compile(code, "loss_over_training", "exec"), vars(module))
    metrics = read_table(DOCS / "data/metrics.parquet")
    figure = module.LOSS_OVER_TRAINING
    data = figure.data({"metrics": metrics[metrics["metric"].isin(figure.reads)]})
    assert set(data["model"]) == set(metrics["model"])
    save(figure.draw(data), data, tmp_path / "loss_over_training")
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".svg", ".csv"}
    save(figure.draw(data.iloc[:0]), data.iloc[:0], tmp_path / "empty")


def commands() -> Iterator[tuple[str, str, str]]:
    for page in EVERY_PAGE:
        for shell in SHELL.findall(page.read_text()):
            lines = shell.replace("\\\n", " ").splitlines()
            console = any(line.startswith("$ ") for line in lines)
            for line in lines if not console else [line for line in lines if line.startswith("$ ")]:
                yield from ((relative(page), *found) for found in COMMAND.findall(line.removeprefix("$ ")))


@cache
def options() -> dict[str, set[str]]:
    found = get_command(app).commands
    return {
        name: {one for parameter in verb.params for one in parameter.opts} for name, verb in found.items()
    }


@pytest.mark.parametrize(("page", "verb", "rest"), sorted(set(commands())))
def test_a_command_has_the_verb_and_the_options_that_a_page_gives_it(page: str, verb: str, rest: str) -> None:
    assert verb in options()
    assert set(re.findall(r"--[a-z-]+", rest)) <= options()[verb]


@cache
def texts_of_the_code() -> tuple[str, ...]:
    """Every text of the library, with … for what it fills in, without backticks."""
    texts = []
    for path in (REPOSITORY / "workflow/lmshape").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return tuple(text.replace("`", "") for text in texts)


def messages() -> Iterator[tuple[str, str]]:
    for page in DOCS.glob("stages/*.md"):
        _, _, trouble = page.read_text().partition("## What can go wrong")
        yield from (
            (page.name, first)
            for first in re.findall(r"^\| `([^`]+)` \|", trouble.partition("\n## ")[0], re.M)
        )


@pytest.mark.parametrize(("page", "message"), list(messages()))
def test_a_message_is_one_of_the_code(page: str, message: str) -> None:
    fragments = [part.strip(" :.()") for part in re.split(r"…|\d+", message)]
    told = [re.escape(part) for part in fragments if len(part) > 2]
    pattern = re.compile(".*".join(told), re.DOTALL)
    assert any(pattern.search(text) for text in texts_of_the_code()), message


NAMED = re.compile(r"`((?:(?:tests|workflow|config|benchmarks|envs|profiles)/[\w./-]+|test_\w+\.py))`")


@pytest.mark.parametrize("page", EVERY_PAGE, ids=relative)
def test_a_file_of_the_repository_that_a_page_names_is_there(page: Path) -> None:
    for name in NAMED.findall(page.read_text()):
        place = REPOSITORY / name if "/" in name else REPOSITORY / "tests/unit" / name
        assert place.exists() or name in files_to_write() or "loss_over_training" in name, name


def declared_tables() -> Iterator[str]:
    for path in (REPOSITORY / "workflow/lmshape").rglob("*.py"):
        module = ".".join(path.relative_to(REPOSITORY / "workflow").with_suffix("").parts).removesuffix(
            ".__init__"
        )
        found = re.findall(r"^(\w*COLUMNS) = declare\(", path.read_text(encoding="utf-8"), re.MULTILINE)
        yield from (f"{module}:{name}" for name in found)


@pytest.mark.parametrize("table", list(declared_tables()))
def test_every_table_stands_on_the_page_of_tables(table: str) -> None:
    known = re.findall(
        r'^    "(\w+)": "([\w.:]+)",$', (DOCS / "extensions/tables_of.py").read_text(), re.MULTILINE
    )
    (name,) = [name for name, place in known if place == table]
    pages = "".join(page.read_text() for page in PAGES)
    assert f"```{{table-columns}} {name}\n" in pages or name == "model"


def test_the_excerpt_is_a_table_of_this_lmshape_and_small() -> None:
    schema = pq.read_schema(DOCS / "data/metrics.parquet")
    assert schema.names == COLUMNS.names
    assert sum(path.stat().st_size for path in (DOCS / "data").glob("*.parquet")) <= 300_000
