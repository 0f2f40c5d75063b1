"""Claims about anisotropy: the dome of decoders, the flat profile of encoders, sinks, and what training does to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np

from lmshape.claims.claim import (
    LONG_RUN,
    ONE_DRAW,
    Claim,
    Curves,
    Evidence,
    Finding,
    Found,
    Judge,
    Verdict,
    each,
    estimated,
    measured,
    missing,
    over,
    published,
    statistic,
    told_by,
    two_sided,
    undecided,
    under,
)
from lmshape.claims.trajectory import ROOM, Observed
from lmshape.dynamics.noise import size
from lmshape.dynamics.phases import FEWEST
from lmshape.dynamics.profiles import FEWEST_BLOCKS, SEEN
from lmshape.geometry.resample import Estimate

ARTICLE = "Razzhigaev et al. 2024, arXiv 2311.05928"
HABR = "the authors' article on Habr"
NEAR_ONE = 0.95
HALF = 0.5
FLAT = 0.1
EXPLAINED = 0.95
LOW = 0.2
SETTLED = 2000  # steps, after which the published runs are said to grow
PYTHIA = "gpt_neox"  # its architecture
GRID = np.linspace(0, 1, 21)
ROWS = ("all", "no_sink")

# Finders of claims about the anisotropy by layer and step of each model, with and without sinks.
in_decoders = partial(each, "anisotropy", kind="decoder", rows=ROWS)
in_encoders = partial(each, "anisotropy", kind="encoder", rows=ROWS)


def shapeless(curves: Curves) -> str:
    """Say why a profile has no shape; empty where it has one."""
    if len(curves.layers) < FEWEST_BLOCKS:
        return f"{len(curves.layers)} blocks; a profile needs {FEWEST_BLOCKS}"
    return "" if np.isfinite(curves.last[0]).all() else "a layer of the last checkpoint has no anisotropy"


def shaped(judge: Judge) -> Judge:
    """Judge profiles that have a shape, and say of others why they have none."""

    def judged(evidence: Evidence, finding: Finding, curves: Curves) -> Found | None:
        why = shapeless(curves)
        return missing(finding, why) if why else judge(evidence, finding, curves)

    return judged


def edges(profile: np.ndarray) -> np.ndarray:
    """Return the larger of the values after the first and after the last block; profile: (..., layers)."""
    return np.maximum(profile[..., 0], profile[..., -1])


def inside(profile: np.ndarray) -> np.ndarray:
    """Return the largest value of the blocks between the first and the last; profile: (..., layers)."""
    return profile[..., 1:-1].max(axis=-1)


def middle(curves: Curves) -> np.ndarray:
    """(layers,) bool: the middle half of the blocks."""
    return (curves.depth > 0.25) & (curves.depth <= 0.75)


@shaped
def peaks_inside(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Dome index of the last checkpoint against what a flat profile of this noise reads."""
    if (found := dome_index(evidence, finding, curves)) is None:
        return missing(finding, "needs the row of `profiles` of the last checkpoint")
    dome = _dome(finding, *found)
    if not np.isnan(dome.p):
        # the index ends at 0, so that its interval may have no length; this goes on below
        rise = estimated(inside(curves.last) - edges(curves.last))
        dome = replace(dome, p=two_sided(rise, dome.threshold))
    return replace(dome, place=f"block {curves.layers[curves.last[0].argmax()]}")


def _dome(finding: Finding, index: Estimate, null: float) -> Finding:
    """Decide: a dome has to exceed what noise alone makes; there is none where the index stays under `SEEN`."""
    dome = over(max(SEEN, null)).decided(finding, index)
    if dome.verdict != "contradicted" or null <= SEEN:
        return dome
    none = over(SEEN).decided(finding, index)
    if none.verdict == "contradicted":
        return none
    return undecided(dome, f"noise alone reads up to {null:.2f}")


def dome_index(evidence: Evidence, finding: Finding, curves: Curves) -> tuple[Estimate, float] | None:
    """Return the dome index of the last checkpoint with its interval from `profiles`, and a flat profile's index.

    That interval counts each block that may be the highest one, where the jackknife of a largest value knows one alone.
    """
    cell = {"model": finding.model, "dataset": finding.dataset, "rows": finding.rows}
    own = evidence.table("profiles", metric="anisotropy", step=int(curves.steps[-1]), **cell)
    if own.empty:
        return None
    row = own.iloc[-1]
    found = Estimate(row["dome_index"], row["dome_index_low"], row["dome_index_high"], curves.draws)
    return found, 0.0 if np.isnan(row["dome_index_null"]) else float(row["dome_index_null"])


@shaped
def nearly_a_line(evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    """Largest anisotropy of the middle half of the blocks, at the last checkpoint."""
    finding = published(finding, "anisotropy of the middle layers")
    return finding, estimated(curves.last[:, middle(curves)].max(axis=1))


def onset(evidence: Evidence, finding: Finding, curves: Curves) -> Finding | None:
    """First block whose anisotropy is over 0.95, beside the published one."""
    finding = published(finding, "onset layer")
    if not finding.published:
        return None
    if why := shapeless(curves):
        return missing(finding, why)
    if curves.draws < 2:
        return undecided(finding, ONE_DRAW)
    over = curves.last > NEAR_ONE
    if not over.any(axis=1).all():
        verdict: Verdict = "undecided" if over.any() else "contradicted"
        why = "no block is over 0.95, with all draws or without one of them"
        return replace(finding, verdict=verdict, why=why)
    first = curves.layers[over.argmax(axis=1)].astype(float)
    near = np.abs(first - float(finding.published)) <= 1
    return replace(
        finding,
        number=first[0],
        ci_low=first.min(),
        ci_high=first.max(),
        draws=len(first) - 1,
        threshold=float(finding.published),
        verdict="supported" if near.all() else "undecided" if near.any() else "contradicted",
        why="from the least to the greatest without a draw",
    )


def sinks_explain_it(evidence: Evidence, finding: Finding, curves: Curves) -> Found:
    """Share of the excess of anisotropy over its null that goes with the sinks, at the block where it is largest."""
    without = evidence.curves(finding.model, "anisotropy", rows="no_sink")
    null = evidence.curves(finding.model, "anisotropy_null")
    if without is None or null is None:
        return missing(finding, "needs anisotropy of `no_sink` rows and `anisotropy_null`")
    peak = int(curves.last[0].argmax())
    finding, most = replace(finding, place=f"block {curves.layers[peak]}"), curves.last[0, peak]
    if not most > HALF:
        return missing(finding, f"anisotropy is {most:.2f} at most; there is no plateau to explain")
    floor = null.last[:, peak]
    share = 1 - (without.last[:, peak] - floor) / (curves.last[:, peak] - floor)
    return finding, estimated(share)


def decoders_above_encoders(evidence: Evidence) -> Iterator[Found]:
    """Height of each decoder's profile over that of each encoder, at their last checkpoints."""
    decoders, encoders = dict(_heights(evidence, "decoder")), dict(_heights(evidence, "encoder"))
    for (_, rows), (height, finding) in decoders.items():
        for (encoder, choice), (other, _) in encoders.items():
            if choice == rows:
                yield replace(finding, place=f"over {encoder}"), _independent(height, other)


def _heights(evidence: Evidence, kind: str) -> Iterator[tuple[tuple[str, str], tuple[Estimate, Finding]]]:
    for finding, curves in measured(evidence, "anisotropy", kind=kind, rows=ROWS):
        yield (finding.model, finding.rows), (estimated(curves.last.max(axis=1)), finding)


def _independent(one: Estimate, other: Estimate) -> Estimate:
    """Difference of two estimates from tokens of their own: another tokenizer cuts other sequences."""
    half = np.hypot(one.high - one.low, other.high - other.low) / 2
    value = one.value - other.value
    return Estimate(value, value - half, value + half, min(one.draws, other.draws))


def same_profile(evidence: Evidence) -> Iterator[Found]:
    """Root mean square difference of two decoders' final profiles over relative depth."""
    for finding, one, two in _pairs(evidence):
        why = shapeless(one) or shapeless(two)
        yield missing(finding, why) if why else (finding, estimated(_distance(one, two, -1, -1)))


def come_together(evidence: Evidence) -> Iterator[Found]:
    """Difference of two decoders' profiles at the last step that both have, less that at the first one after step 0."""
    for finding, one, two in _pairs(evidence):
        steps = np.intersect1d(one.steps[one.steps > 0], two.steps[two.steps > 0])
        if len(steps) < 2 or len(one.layers) < 2 or len(two.layers) < 2:
            yield missing(finding, f"{len(steps)} steps after step 0 that both models have; needs 2")
            continue
        first, last = (
            _distance(one, two, *(int(np.searchsorted(curves.steps, step)) for curves in (one, two)))
            for step in (steps[0], steps[-1])
        )
        yield replace(finding, why=f"steps {steps[0]} and {steps[-1]}"), estimated(last - first)


def _pairs(evidence: Evidence) -> Iterator[tuple[Finding, Curves, Curves]]:
    for rows in ROWS:
        decoders = measured(evidence, "anisotropy", kind="decoder", rows=[rows])
        for (finding, one), (other, two) in combinations(decoders, 2):
            yield replace(finding, place=f"to {other.model}"), one, two


def _distance(one: Curves, two: Curves, place: int, other: int) -> np.ndarray:
    """(K + 1,): root mean square difference over relative depth of two profiles, each of a step's place."""
    count = min(len(one.values), len(two.values))
    return size(_on_grid(one, place)[:count] - _on_grid(two, other)[:count])


def _on_grid(curves: Curves, place: int) -> np.ndarray:
    return np.array([np.interp(GRID, curves.depth, profile) for profile in curves.values[:, place]])


def grows(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Trajectory of the height of the profile, from step 1 on."""
    return _growth(finding, curves, curves.steps > 0)


def grows_when_settled(evidence: Evidence, finding: Finding, curves: Curves) -> Finding:
    """Trajectory of the height of the profile, from step 2000 on."""
    if curves.steps[-1] < LONG_RUN:
        return missing(finding, f"the claim is about runs of over {LONG_RUN} steps")
    return _growth(finding, curves, curves.steps >= SETTLED)


def _growth(finding: Finding, curves: Curves, chosen: np.ndarray) -> Finding:
    """Decide by the significant segments of the height; its change over the whole trajectory is the number shown."""
    heights = curves.values.max(axis=2)[:, chosen]
    kept = np.isfinite(heights).all(axis=0)
    heights, steps = heights[:, kept], curves.steps[chosen][kept]
    if len(steps) < FEWEST:
        return missing(finding, f"{len(steps)} checkpoints; a trajectory needs {FEWEST}")
    observed = Observed.of_values(heights, steps)
    told = replace(told_by(finding, estimated(heights[:, -1] - heights[:, 0])), why=observed.words)
    if not observed.sure:
        return undecided(told, ONE_DRAW)
    if "fall" in observed.segments or (observed.decided and not observed.segments):
        return replace(told, verdict="contradicted", p=observed.p_of_segments())
    if observed.decided:
        return replace(told, verdict="supported", p=observed.p_of_segments())
    return undecided(told, ROOM)


def none_before_a_thousand(evidence: Evidence, finding: Finding, curves: Curves) -> Found | None:
    """Largest anisotropy of the middle half of the blocks at any step from 1 to 1000, in Pythia models."""
    if evidence.family(finding.model) != PYTHIA:
        return None
    early = (curves.steps > 0) & (curves.steps <= 1000)
    if curves.steps[-1] < LONG_RUN or not early.any():
        return missing(finding, f"the claim is about step 1000 of runs of over {LONG_RUN} steps")
    return finding, estimated(curves.values[:, early][:, :, middle(curves)].max(axis=(1, 2)))


def no_plateau(evidence: Evidence, finding: Finding, curves: Curves) -> Found | None:
    """Height of the profile of OLMo-2 models."""
    if evidence.family(finding.model) != "olmo2":
        return None
    return published(finding, "anisotropy of the middle layers"), estimated(curves.last.max(axis=1))


CLAIMS = (
    Claim(
        slug="dome",
        sentence="In decoders anisotropy over the layers has the shape of a bell, highest in the middle",
        source=f"{ARTICLE}, abstract",
        source_kind="article",
        statistic="dome index, last checkpoint (`profiles`): largest anisotropy of a block less the higher edge's",
        rule=f"supported if its interval is over {SEEN} and dome_index_null, a flat profile's; contradicted if under"
        f" {SEEN}",
        find=in_decoders(peaks_inside),
    ),
    Claim(
        slug="isotropic_ends",
        sentence="The first and the last layers of decoders are much more isotropic than the middle",
        source=f"{ARTICLE}, abstract; {HABR}",
        source_kind="article",
        statistic="anisotropy of the higher of the first and the last block over the highest between, last checkpoint",
        rule=under(HALF),
        find=in_decoders(shaped(statistic(lambda curves: edges(curves.last) / inside(curves.last)))),
    ),
    Claim(
        slug="nearly_a_line",
        sentence="In the middle layers of decoders anisotropy is practically 1, even after centering",
        source=f"{HABR}; AIRI blog",
        source_kind="article",
        statistic="largest anisotropy of the middle half of the blocks, last checkpoint",
        rule=over(NEAR_ONE),
        find=in_decoders(nearly_a_line),
    ),
    Claim(
        slug="plateau_onset",
        sentence="The plateau of Pythia begins at the block that public measurements give",
        source="Skean et al. 2025, arXiv 2502.02013, its published numbers; fragmential/training-time-entropy-circuits",
        source_kind="later paper",
        statistic=f"first block with anisotropy over {NEAR_ONE}, last checkpoint; interval: without a draw",
        rule="supported if it is the published block or one beside it, without any draw; contradicted if never",
        find=in_decoders(onset, rows=["all"]),
    ),
    Claim(
        slug="sinks",
        sentence="Sink rows cause the plateau: without position 0 and rows of huge norm it collapses",
        source="fragmential/training-time-entropy-circuits, docs/dig_findings.md",
        source_kind="later paper",
        statistic="share of the excess of anisotropy over its null that goes with the sinks, block of the peak",
        rule=over(EXPLAINED, f"needs a peak over {HALF}"),
        find=in_decoders(sinks_explain_it, rows=["all"]),
    ),
    Claim(
        slug="uniform_encoders",
        sentence="In encoders anisotropy is roughly uniform over the layers",
        source=f"{ARTICLE}, abstract; {HABR}",
        source_kind="article",
        statistic="largest less smallest anisotropy of a block, last checkpoint",
        rule=under(FLAT),
        find=in_encoders(shaped(statistic(lambda curves: np.ptp(curves.last, axis=1)))),
    ),
    Claim(
        slug="isotropic_encoders",
        sentence="After subtracting the mean, encoders are quite isotropic",
        source=HABR,
        source_kind="article",
        statistic="mean anisotropy of the blocks, last checkpoint",
        rule=under(LOW),
        find=in_encoders(statistic(lambda curves: curves.last.mean(axis=1))),
    ),
    Claim(
        slug="decoders_over_encoders",
        sentence="Decoders are more anisotropic than encoders",
        source=f"{ARTICLE}, abstract",
        source_kind="article",
        statistic="largest anisotropy of a block of the decoder less that of the encoder, last checkpoints",
        rule=over(0),
        find=decoders_above_encoders,
    ),
    Claim(
        slug="one_profile",
        sentence="At the end of training all decoders have the same profile",
        source=f"{HABR}; AIRI blog",
        source_kind="article",
        statistic="root mean square difference of two decoders' last profiles over relative depth",
        rule=under(FLAT),
        find=same_profile,
    ),
    Claim(
        slug="converge",
        sentence="Over training the profiles of decoders come closer to each other",
        source=f"{HABR}; AIRI blog",
        source_kind="article",
        statistic="root mean square difference at the last step that both have, less that at the first after step 0",
        rule=under(0),
        find=come_together,
    ),
    Claim(
        slug="grows",
        sentence="The largest anisotropy grows as training proceeds",
        source=f"{HABR}; AIRI blog",
        source_kind="article",
        statistic="significant segments of the profile's height from step 1 on; shown: its whole change",
        rule="supported if it rises and never falls; contradicted if a fall is significant, or it is flat",
        find=in_decoders(grows),
    ),
    Claim(
        slug="grows_after_2000",
        sentence="After about step 2000 the largest anisotropy only grows",
        source="Skean et al. 2025, arXiv 2502.02013, its published numbers",
        source_kind="later paper",
        statistic="significant segments of the profile's height from step 2000 on; shown: its whole change",
        rule="supported if it rises and never falls; contradicted if a fall is significant, or it is flat; "
        f"runs of {LONG_RUN} steps and more",
        find=in_decoders(grows_when_settled),
    ),
    Claim(
        slug="none_before_1000",
        sentence="There is no plateau in the middle layers of Pythia before about step 1000",
        source="Skean et al. 2025, arXiv 2502.02013, its published numbers",
        source_kind="later paper",
        statistic="largest anisotropy of the middle half of the blocks at steps 1 to 1000",
        rule=under(HALF, f"runs of {LONG_RUN} steps and more"),
        find=in_decoders(none_before_a_thousand),
    ),
    Claim(
        slug="no_plateau_in_olmo_2",
        sentence="OLMo-2 has no plateau of anisotropy at all",
        source="fragmential/training-time-entropy-circuits, docs/final_report.md",
        source_kind="later paper",
        statistic="largest anisotropy of a block, last checkpoint",
        rule=under(HALF),
        find=in_decoders(no_plateau),
    ),
)
