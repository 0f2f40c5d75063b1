"""From a step to its name on the hub, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmshape.checkpoints import expand_steps
from lmshape.errors import InputError
from lmshape.hub.published import Naming, path_safe

# Names of branches that exist: allenai/OLMo-2-0425-1B, and the last two of allenai/OLMo-2-1124-7B.
OLMO_2_1B = {
    0: "stage1-step0-tokens0B",
    300: "stage1-step300-tokens1B",
    10_000: "stage1-step10000-tokens21B",
    23_100: "stage1-step23100-tokens49B",
    50_000: "stage1-step50000-tokens105B",
    140_000: "stage1-step140000-tokens294B",
    480_000: "stage1-step480000-tokens1007B",
    950_000: "stage1-step950000-tokens1993B",
    1_907_359: "stage1-step1907359-tokens4001B",
}
OLMO_2_7B = {150: "stage1-step150-tokens1B", 928_646: "stage1-step928646-tokens3896B"}
OLMO = "stage1-step{step}-tokens{billions}B"
TEMPLATES = [
    "step{step}",
    "ckpt_{step:03d}",
    "global_step{step:09d}",
    "steps/{step}",
    OLMO,
    "{step}",
    "a.b+{step}*",
]

steps = st.integers(0, 10**9)


@pytest.mark.parametrize(("tokens_per_step", "names"), [(2_097_152, OLMO_2_1B), (4_194_304, OLMO_2_7B)])
def test_the_names_of_olmo_2(tokens_per_step: int, names: dict[int, str]) -> None:
    naming = Naming.of(OLMO, tokens_per_step=tokens_per_step)
    assert {step: naming.name(step) for step in names} == names
    assert [naming.step(name) for name in names.values()] == list(names)


@pytest.mark.parametrize(
    ("template", "step", "name"),
    [
        ("step{step}", 143_000, "step143000"),
        ("ckpt_{step:03d}", 7, "ckpt_007"),
        ("ckpt_{step:03d}", 1234, "ckpt_1234"),
        ("step_{kilo}k", 20_000, "step_20k"),
        ("step_{kilo:04d}k", 20_000, "step_0020k"),
        ("{step}", 128_000, "128000"),
        ("step{step}/model", 5, "step5/model"),
    ],
)
def test_templates(template: str, step: int, name: str) -> None:
    naming = Naming.of(template)
    assert naming.name(step) == name
    assert naming.step(name) == step


@given(st.sampled_from(TEMPLATES), steps)
def test_a_name_is_read_as_the_step_that_it_was_made_of(template: str, step: int) -> None:
    naming = Naming.of(template, tokens_per_step=4096)
    assert naming.step(naming.name(step)) == step


@given(st.sampled_from(["step_{kilo}k", "{kilo:05d}"]), steps)
def test_thousands_are_read_back(template: str, step: int) -> None:
    naming = Naming.of(template)
    assert naming.step(naming.name(step)) == step - step % 1000
    assert naming.spells(step) == (step % 1000 == 0)


@given(st.sampled_from(TEMPLATES), st.sets(steps, max_size=20))
def test_steps_have_names_of_their_own(template: str, some: set[int]) -> None:
    naming = Naming.of(template, tokens_per_step=4096)
    assert len({naming.name(step) for step in some}) == len(some)


@pytest.mark.parametrize(
    "name", ["main", "step", "step12-old", "xstep12", "step-3", "stepXII", "step12\n", "Step12"]
)
def test_names_of_another_kind_have_no_step(name: str) -> None:
    assert Naming.of("step{step}").step(name) is None


def test_characters_of_regular_expressions_stand_for_themselves() -> None:
    naming = Naming.of("v1.0(a)+{step}")
    assert naming.step("v1.0(a)+3") == 3
    assert naming.step("v1x0a3") is None


def test_the_rounding_of_billions_may_be_the_hubs_own() -> None:
    assert (
        Naming.of("step{step}-tokens{billions}B", tokens_per_step=4_194_304).step("step1000-tokens4B") == 1000
    )


@pytest.mark.parametrize("template", ["step{step}", "stage1-step{step}"])
def test_a_plain_template_needs_no_tokens(template: str) -> None:
    assert Naming.of(template).name(3).endswith("step3")


@pytest.mark.parametrize(
    "template",
    [
        "main",
        "{billions}B",
        "{step}-{step}",
        "{step}-{kilo}k",
        "{step}-{seed}",
        "{step:3d}",
        "{Step}",
        "step{step}}",
        "{",
    ],
)
def test_templates_that_do_not_hold_the_step_once(template: str) -> None:
    with pytest.raises(InputError) as error:
        Naming.of(template, tokens_per_step=1)
    assert str(error.value) == (
        f"`{template}`: must hold the step once, as {{step}}, {{step:03d}} or {{kilo}}; besides it only {{billions}} "
        "is known."
    )


def test_billions_need_the_tokens_of_a_step() -> None:
    with pytest.raises(InputError) as error:
        Naming.of(OLMO)
    assert str(error.value) == f"`{OLMO}`: {{billions}} needs `tokens_per_step` beside it."


def test_a_pattern_reads_the_step_off_its_first_group() -> None:
    naming = Naming.reading(r"step(\d+)-tokens\d+B(-old)?")
    assert naming.step("step20-tokens1B") == 20
    assert naming.step("step20-tokens1B-old") == 20
    assert naming.step("step20") is None
    assert naming.template == ""


@pytest.mark.parametrize(
    ("pattern", "name"), [("(step)1", "step1"), ("step(x)?1", "step1"), (r"(\d*)step", "step")]
)
def test_a_group_that_holds_no_number_is_no_step(pattern: str, name: str) -> None:
    assert Naming.reading(pattern).step(name) is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "step(",
            "`step_pattern` = 'step(': not a regular expression (missing ), unterminated subpattern at position 4).",
        ),
        (r"step\d+", r"`step_pattern` = 'step\d+': needs a group around the step, as in `step(\d+)`."),
    ],
)
def test_patterns_that_cannot_be_read(pattern: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        Naming.reading(pattern)
    assert str(error.value) == message


def test_ranges_are_written_out() -> None:
    ranges = [0, 1, {"from": 1000, "to": 3500, "every": 1000}, {"from": 4000, "to": 4000, "every": 7}]
    assert expand_steps(ranges, where="m.steps") == (0, 1, 1000, 2000, 3000, 4000)


@pytest.mark.parametrize(
    ("given_steps", "message"),
    [
        ([0, 2, 1], "`m.steps`: 1 follows 2. List the steps in ascending order, once."),
        ([0, 2, 2], "`m.steps`: 2 follows 2. List the steps in ascending order, once."),
        (
            [5, {"from": 0, "to": 9, "every": 3}],
            "`m.steps`: 0 follows 5. List the steps in ascending order, once.",
        ),
        (
            [{"from": 3000, "to": 1000, "every": 1000}],
            "`m.steps`: from 3000 to 1000 there is no step. Swap the two.",
        ),
    ],
)
def test_steps_that_do_not_ascend(given_steps: list, message: str) -> None:
    with pytest.raises(InputError) as error:
        expand_steps(given_steps, where="m.steps")
    assert str(error.value) == message


@given(st.text(max_size=30))
def test_what_a_path_cannot_hold_becomes_a_dash(name: str) -> None:
    safe = path_safe(name)
    assert path_safe(safe) == safe
    assert not set(safe) & set(" /\\:*?\"<>|'\n\0")


def test_names_that_paths_can_hold_stay() -> None:
    assert path_safe("stage1-step0_a.b+c=d") == "stage1-step0_a.b+c=d"
    assert path_safe("a/b c") == "a-b-c"
