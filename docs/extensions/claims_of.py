"""`claim-list`: the claims that a study tests, as `lmshape.claims` states them."""

from __future__ import annotations

from generated import Generated

from lmshape.claims import CLAIMS


class ClaimList(Generated):
    """Sentence, source, scope, statistic and rule of every claim, in the order of the table."""

    required_arguments = 0

    def markdown(self, name: str) -> str:
        """Write an entry of a definition list for each claim."""
        return "\n".join(
            f"`{claim.slug}`\n"
            f": **{claim.sentence}** ({claim.source}).\n\n"
            f"  *About*: {claim.about}.\n\n"
            f"  *Statistic*: {claim.statistic}.\n\n"
            f"  *Rule*: {claim.rule}.\n"
            for claim in CLAIMS
        )
