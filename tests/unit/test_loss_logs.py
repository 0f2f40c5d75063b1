"""Loss logs of other people: the right rows and columns of each, or a refusal that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_spikes import calm, planted

from lmshape.dynamics.loss_logs import read_loss_log
from lmshape.dynamics.spikes import find_spikes
from lmshape.errors import InputError

NAN = float("nan")


def read(path: Path, text: str) -> pd.DataFrame:
    """Read a log of one run."""
    path.write_text(text)
    ((name, curve),) = read_loss_log(path, name="mine")
    assert name == "mine"
    return curve


def pairs(curve: pd.DataFrame) -> list[tuple[float, float]]:
    return list(zip(curve["step"], curve["loss"], strict=True))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


@pytest.mark.parametrize(
    "names",
    [
        ("step", "loss", "grad_norm"),
        ("iteration", "lm_loss", "gradient_norm"),
        ("Step", "train_loss", "grad norm"),
        ("train/global_step", "train/loss", "train/grad_norm"),  # wandb behind Trainer
        ("trainer/global_step", "train_loss_step", "grad_norm"),  # Lightning
        ("_step", "train/CrossEntropyLoss", "optim/total_grad_norm"),  # OLMo
        ("_step", "train/CE loss", "optim/total grad norm"),  # OLMo-core
    ],
)
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_logs_may_name_their_columns_in_many_ways(names: tuple[str, ...], separator: str, log: Path) -> None:
    run = planted(calm(), 400).assign(norm=1.0)
    run.columns = list(names)
    curve = read(log, run.to_csv(index=False, sep=separator))
    assert list(curve.columns) == ["step", "loss", "gradient_norm"]
    assert len(find_spikes(curve)) == 1


def test_a_tensorboard_export_and_one_of_wandbs_pages(log: Path) -> None:
    assert pairs(read(log, "Wall time,Step,Value\n1.7e9,1,5.0\n1.7e9,2,4.0\n")) == [(1, 5), (2, 4)]
    log.write_text(
        '"Step","one - train/loss","one - train/loss__MIN","one - train/loss__MAX","two - train/loss"\n'
        '"1","5.0","5.0","5.0",""\n"2","4.0","4.0","4.0","6.0"\n'
    )
    assert [(name, pairs(curve)) for name, curve in read_loss_log(log, name="mine")] == [
        ("mine/one", [(1, 5), (2, 4)]),
        ("mine/two", [(2, 6)]),
    ]
    only = read(log, "Step,one - train/loss\n1,5.0\n")
    assert pairs(only) == [(1, 5)]


def test_training_steps_go_before_calls_of_the_log(log: Path) -> None:
    """A spike at step 3000 is not one at call 358."""
    run = planted(calm(800, every=10), 400)
    rows = [f"{call},{step},{loss}" for call, (step, loss) in enumerate(pairs(run))]
    for header in ("_step,train/global_step,train/loss", "_step,global_step,loss"):
        (spike,) = find_spikes(read(log, "\n".join([header, *rows])))
        assert spike.onset == pytest.approx(4000, abs=20)
    with pytest.raises(
        InputError, match=r"`step` and `train/global_step` are different steps \(0 and 10 of one"
    ):
        read(log, "step,train/global_step,loss\n0,10,5\n1,20,4\n")
    assert pairs(read(log, "step,trainer/global_step,loss\n10,10,5\n20,20,4\n")) == [(10, 5), (20, 4)]


def trainer_state(path: Path, history: list[dict]) -> Path:
    path.write_text(json.dumps({"global_step": 40, "log_history": history, "max_steps": 40}))
    return path


def test_trainer_state_is_a_log(tmp_path: Path) -> None:
    history = [{"loss": 5.0, "grad_norm": 1.0, "learning_rate": 1e-3, "epoch": 0.1, "step": 10}]
    history += [{"eval_loss": 4.5, "eval_runtime": 1.0, "epoch": 0.1, "step": 10}]
    history += [{"loss": 4.0, "grad_norm": 2.0, "learning_rate": 1e-3, "epoch": 0.2, "step": 20}]
    history += [{"loss": 0.0, "grad_norm": NAN, "learning_rate": 1e-3, "epoch": 0.3, "step": 30}]
    history += [{"train_runtime": 9.0, "train_loss": 3.0, "epoch": 0.3, "step": 30}]
    ((_, curve),) = read_loss_log(trainer_state(tmp_path / "trainer_state.json", history), name="mine")
    np.testing.assert_array_equal(curve["step"], [10, 20, 30])
    np.testing.assert_array_equal(curve["loss"], [5, 4, NAN])
    np.testing.assert_array_equal(curve["gradient_norm"], [1, 2, NAN])
    np.testing.assert_array_equal(
        curve["averaged"], [1, 10, 10]
    )  # what the first is the mean of is not known


def test_a_loss_of_zero_beside_a_gradient_that_is_none_is_none(log: Path) -> None:
    curve = read(log, "step,loss,grad_norm\n1,5,1\n2,0.0,nan\n3,0.0,0.0\n4,4,NaN\n")
    np.testing.assert_array_equal(curve["loss"], [5, NAN, 0, 4])


@pytest.mark.parametrize(
    ("losses", "norms", "expected"),
    [
        ((5, 0, 0), (1, NAN, np.inf), (5, NAN, NAN)),
        ((5, 0, 0), None, (5, NAN, NAN)),  # of a Trainer that logs no gradient norms
        ((5, 0, 0), (1, 0.1, 0.1), (5, 0, 0)),
        ((5, 0.01, 0), None, (5, 0.01, 0)),  # learned by heart: Trainer rounds to four digits
        ((0, 0, 5), None, (0, 0, 5)),
    ],
)
def test_the_zeros_of_a_run_of_trainer_that_diverged(
    losses: tuple, norms: tuple | None, expected: tuple, tmp_path: Path
) -> None:
    rows = [{"step": 10 * (number + 1), "loss": loss} for number, loss in enumerate(losses)]
    if norms:
        rows = [row | {"grad_norm": norm} for row, norm in zip(rows, norms, strict=True)]
    ((_, curve),) = read_loss_log(trainer_state(tmp_path / "trainer_state.json", rows), name="mine")
    np.testing.assert_array_equal(curve["loss"], expected)


def test_a_step_that_a_resumed_trainer_logs_again_is_the_mean_of_as_many(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": loss} for step, loss in ((10, 5.0), (20, 4.0), (20, 4.5), (30, 3.0))]
    ((_, curve),) = read_loss_log(trainer_state(tmp_path / "trainer_state.json", rows), name="mine")
    assert curve.to_numpy().tolist() == [[10, 5, 1], [20, 4.5, 10], [30, 3, 10]]


ROWS = [{"step": 1, "loss": 5.0}, {"step": 1, "eval_loss": 4.5}, {"step": 2, "loss": NAN}]
LINES = "\n".join(map(json.dumps, ROWS))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        LINES,
        LINES + "\n",
        LINES + '\n{"step": 3, "lo',  # is being written
    ],
)
def test_rows_in_json(text: str, log: Path) -> None:
    np.testing.assert_array_equal(read(log, text), [[1, 5], [2, NAN]])


def test_rows_in_parquet(tmp_path: Path) -> None:
    """As wandb keeps a run's history: null where nothing was logged, and histograms."""
    losses = pa.array([5.0, None, NAN, 4.0], from_pandas=False)
    table = {"_step": [0, 1, 2, 3], "train/global_step": [10, 20, 30, 40], "train/loss": losses}
    pq.write_table(pa.table({**table, "histogram": [[1], [2], [], [3, 4]]}), tmp_path / "history.parquet")
    ((_, curve),) = read_loss_log(tmp_path / "history.parquet", name="mine")
    np.testing.assert_array_equal(curve, [[10, 5], [30, NAN], [40, 4]])
    (tmp_path / "broken.parquet").write_text("step,loss")
    with pytest.raises(InputError, match="broken.parquet`: cannot be read .* Name a CSV file in UTF-8"):
        read_loss_log(tmp_path / "broken.parquet", name="mine")


def test_a_last_row_that_is_being_written_waits(log: Path) -> None:
    assert pairs(read(log, "step,loss\n1,5\n2,4\n30")) == [(1, 5), (2, 4)]
    assert pairs(read(log, "step,loss\n1,5\n  \n2,4")) == [(1, 5), (2, 4)]


def test_empty_cells_are_steps_without_a_loss_and_nan_is_a_loss_that_is_none(log: Path) -> None:
    curve = read(log, "step,loss\n1,5.0\n2,\n3,nan\n4,inf\n")
    np.testing.assert_array_equal(curve["step"], [1, 3, 4])
    np.testing.assert_array_equal(curve["loss"], [5, NAN, np.inf])


@pytest.mark.parametrize("nothing", ["NaN", "null", "nan", ""])
@pytest.mark.parametrize("evaluation", ["eval_loss", "val_loss", "eval/loss", "valid", "test/ppl"])
def test_rows_of_evaluations_are_none_of_training(nothing: str, evaluation: str, log: Path) -> None:
    text = f"step,loss,{evaluation}\n1,5,\n2,nan,nan\n2,{nothing},4.9\n3,4,NaN\n"
    curve = read(log, text)
    np.testing.assert_array_equal(curve["loss"], [5, NAN, 4])


def test_a_split_column_says_which_rows_are_of_training(log: Path) -> None:
    text = "step,split,loss\n1,train,5\n1,val,6\n2,train,4\n2,val,7\n"
    assert pairs(read(log, text)) == [(1, 5), (2, 4)]
    with pytest.raises(InputError, match="`split` is val, dev and never `train`; no row is of training"):
        read(log, "step,split,loss\n1,val,5\n1,dev,6\n")


@pytest.mark.parametrize("evaluation", ["val", "validation", "eval", "Test", "dev"])
def test_a_column_of_any_name_may_say_which_rows_are_of_training(evaluation: str, log: Path) -> None:
    text = f"step,set,note,loss\n1,train,a,5\n1,{evaluation},b,6\n2,train,c,4\n2,{evaluation},d,7\n"
    assert pairs(read(log, text)) == [(1, 5), (2, 4)]


def test_a_row_for_each_quantity_is_read_where_all_are_of_the_loss(log: Path) -> None:
    """As TensorBoard's scalars in the long form, and geometry.csv, which is no log of losses."""
    assert pairs(read(log, "step,tag,value\n1,train/loss,5\n1,eval/loss,6\n2,train/loss,4\n")) == [
        (1, 5),
        (2, 4),
    ]
    dated = "step,timestamp,value\n1,2024-05-01 10:00:00.25,5\n2,2024-05-01 10:00:01,4\n"
    assert pairs(read(log, dated)) == [(1, 5), (2, 4)]
    with pytest.raises(
        InputError, match="`value` is of several quantities, which `tag` names: train/loss, lr"
    ):
        read(log, "step,tag,value\n1,train/loss,5\n1,lr,0.1\n")
    with pytest.raises(InputError, match="which `metric` names: anisotropy, loss. Keep the rows"):
        read(log, "step,layer,metric,value\n0,1,anisotropy,0.5\n0,1,loss,5\n")


def test_a_rollback_takes_back_the_rows_from_its_step_on(log: Path) -> None:
    """Also those of steps that the second attempt does not log."""
    first = [(step, 5.0) for step in range(0, 500, 10)]
    again = [(step, 4.0) for step in range(405, 800, 10)]
    text = "\n".join(["step,loss", *(f"{step},{loss}" for step, loss in first + again)])
    assert pairs(read(log, text)) == first[:41] + again


def test_steps_that_are_counted_within_epochs_are_no_rollbacks(log: Path) -> None:
    rows = [(epoch, step, 9.0 - epoch) for epoch in range(3) for step in range(0, 100, 5)]
    with pytest.raises(InputError, match="`step` begins anew 2 times, as if counted within each epoch"):
        read(log, "\n".join(["step,loss", *(f"{step},{loss}" for _, step, loss in rows)]))
    with pytest.raises(InputError, match="`step` begins anew 1 times"):
        read(log, "\n".join(["epoch,step,loss", *(",".join(map(str, row)) for row in rows[:40])]))
    restarted = [(step, 5.0) for end in (30, 40, 800) for step in range(0, end, 10)]
    assert pairs(read(log, "\n".join(["step,loss", *(f"{step},{loss}" for step, loss in restarted)]))) == [
        (step, 5.0) for step in range(0, 800, 10)
    ]


def test_a_run_may_break_off_at_the_same_step_again_and_again(log: Path) -> None:
    attempts = [(step, 5.0) for begin in (0, 100, 100, 100) for step in range(begin, 140, 5)]
    found = read(log, "\n".join(["step,loss", *(f"{step},{loss}" for step, loss in attempts)]))
    assert pairs(found) == [(step, 5.0) for step in range(0, 140, 5)]


def test_rows_of_several_runs_or_processes_do_not_replace_each_other(log: Path) -> None:
    runs = [(seed, step, 9.0 - step / 100 + seed) for seed in (1, 2, 3) for step in range(0, 100, 5)]
    by_run = "\n".join(["seed,step,loss", *(",".join(map(str, row)) for row in runs)])
    with pytest.raises(InputError, match="`seed` is 1, 2, 3, each with the same steps. Name it `run`"):
        read(log, by_run)
    log.write_text(by_run.replace("seed", "run"))
    found = {name: pairs(curve) for name, curve in read_loss_log(log, name="mine")}
    assert found == {
        f"mine/{seed}": [(step, loss) for one, step, loss in runs if one == seed] for seed in (1, 2, 3)
    }
    by_step = sorted(((step, loss) for _, step, loss in runs))
    with pytest.raises(InputError, match="most steps in `step` stand in several rows with other losses"):
        read(log, "\n".join(["step,loss", *(f"{step},{loss}" for step, loss in by_step)]))
    twice = [row for row in pairs(read(log, "step,loss\n1,5\n1,5\n2,4\n2,4\n"))]
    assert twice == [(1, 5), (2, 4)], "a logger with two handlers"


def test_rows_in_no_order_are_sorted(log: Path) -> None:
    run = planted(calm(), 400)
    for mixed in (run.sample(frac=1, random_state=0), run[::-1]):
        pd.testing.assert_frame_equal(
            read(log, mixed.to_csv(index=False)), run.astype(float), check_exact=False
        )


def test_a_comma_at_the_end_of_each_row_shifts_nothing(log: Path) -> None:
    assert pairs(read(log, "step,loss,lr\n1,5.0,0.1,\n2,4.0,0.1,\n")) == [(1, 5), (2, 4)]
    with pytest.raises(InputError, match="row 2 has 4 cells, and the header names 3 columns"):
        read(log, "step,loss,lr\n0,1,5.0,0.1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "step,accuracy\n1,2\n",
            "has no column for the loss, only step, accuracy. Name it one of loss, train_loss",
        ),
        ("epoch,loss\n1,2\n", "has no column for the step"),
        ("step,loss\n0.5,2\n", "`step` = 0.5: must be a whole number"),
        ("step,loss\none,2\n", "`step` = 'one': must be a number"),
        ("step,loss\n1,high\n", "`loss` = 'high': must be a number, or `nan`"),
        ("step,loss\n", "no row has a training loss in `loss`"),
        ("step,loss,eval_loss\n1,,4\n2,nan,3\n", "no row has a training loss in `loss`"),
        ("", "is empty. Write a header and one row per step"),
        ("step,loss,loss\n1,5,6\n", "has 2 columns `loss`. Which one counts"),
        ("step,Loss, loss\n1,5,6\n", "has 2 columns `loss`. Which one counts"),
        ("step,step,loss\n1,1,6\n", "has 2 columns `step`. Which one counts"),
        ('{"log_history": []}', "has no column for the loss, only . Name it one of"),
        (
            "First Citizen:\nBefore we proceed any further, hear me speak.\n",
            "row 2 has 2 cells|no column for",
        ),
        ('{"a": 1}', "has no column for the loss, only a. Name it one of"),
        ('{\n  "a": 1\n}', "is JSON, but no trainer_state.json of Trainer, and not a row in each line"),
        ('{"log_history": [', "is JSON, but no trainer_state.json of Trainer"),
    ],
)
def test_a_log_that_cannot_be_read_is_refused(text: str, message: str, log: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(log, text)
    log.write_bytes(b"\xff\xfe\x00step")
    with pytest.raises(
        InputError,
        match="cannot be read .* Name a CSV file in UTF-8, JSON Lines, Parquet, or",
    ):
        read_loss_log(log, name="mine")
    with pytest.raises(InputError, match="no such file"):
        read_loss_log(log.with_name("other.csv"), name="mine")
