"""The tables of the site are those that the code makes now, and README says what they say."""

from __future__ import annotations

import runpy

import pandas as pd
import pyarrow.parquet as pq
import pytest

from lmshape.claims import CLAIM_COLUMNS, CLAIMS
from lmshape.claims.claim import VERDICTS, Bound
from lmshape.study.registry import REPOSITORY
from lmshape.tables.columns import COLUMNS

DATA = REPOSITORY / "docs/data"


@pytest.fixture(scope="module")
def claims() -> pd.DataFrame:
    return pd.read_parquet(DATA / "claims.parquet")


def test_the_tables_have_the_columns_of_the_code() -> None:
    assert pq.read_schema(DATA / "claims.parquet").equals(CLAIM_COLUMNS)
    assert pq.read_schema(DATA / "metrics.parquet").names == COLUMNS.names


def test_the_claims_are_those_of_the_code(claims: pd.DataFrame) -> None:
    """Sentences, sources, statistics and rules: a verdict of a retired rule is in no table of the site."""
    names = ["slug", "sentence", "source", "source_kind", "statistic", "rule"]
    said = claims[names].drop_duplicates()
    assert said.to_numpy().tolist() == [[str(getattr(claim, name)) for name in names] for claim in CLAIMS]
    assert set(claims["verdict"]) <= set(VERDICTS)
    assert list(claims.loc[claims["part"] == "answer", "slug"]) == [claim.slug for claim in CLAIMS]


def test_verdicts_are_what_the_rules_say_of_the_intervals(claims: pd.DataFrame) -> None:
    """A rule whose threshold has moved since the table was made, or another scope, does not pass."""
    rules = {claim.slug: claim.rule for claim in CLAIMS}
    decided = claims[claims["rule_says"].isin(["supported", "contradicted"]) & claims["ci_low"].notna()]
    checked = 0
    for row in decided.to_dict("records"):
        if isinstance(rule := rules[row["slug"]], Bound):
            assert row["threshold"] == rule.number
            assert row["rule_says"] == rule.verdict(row["ci_low"], row["ci_high"]), row["slug"]
            checked += 1
    assert checked > 20
    about = {claim.slug: claim.about for claim in CLAIMS}
    small = claims[claims["model"] == "wiki-decoder"]  # 1.7 million parameters
    inside = small[~small["verdict"].isin(["out of scope", "not measurable"])]
    assert all(about[slug].least == 0 for slug in inside["slug"])


def test_claims_and_metrics_of_the_site_are_of_one_study(claims: pd.DataFrame) -> None:
    metrics = pd.read_parquet(DATA / "metrics.parquet")
    last = metrics[(metrics["step"] == metrics["step"].max()) & (metrics["dataset"] == "wiki")]
    last = last[(last["metric"] == "anisotropy") & (last["rows"] == "all") & (last["site"] == "block")]
    middle = last[(last["depth"] > 0.25) & (last["depth"] <= 0.75)]
    heights = middle.groupby("model")["value"].max()
    near = claims[(claims["slug"] == "nearly_a_line") & (claims["rows"] == "all")].iloc[0]
    assert near["number"] == pytest.approx(heights[near["model"]], rel=1e-9)


def test_readme_says_what_the_claims_say(claims: pd.DataFrame) -> None:
    module = runpy.run_path(str(REPOSITORY / "docs/verdicts.py"))
    text = (REPOSITORY / "README.md").read_text()
    assert module["with_verdicts"](text, claims) == text
    sentences = {claim.slug: claim.sentence for claim in CLAIMS}
    assert all(f"| {sentences[slug]} |" in text for slug in module["SHOWN"])
    assert "every verdict on them is *out of scope*" in text
    models = claims[claims["model"].str.startswith("wiki-")]
    assert set(models["verdict"]) <= {"out of scope", "not measurable"}
