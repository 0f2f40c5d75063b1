"""Tables in Markdown, and the part of a page between two markers that a script writes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

BEGIN = "<!-- begin: written by `{command}` -->"
END = "<!-- end: written by `{command}` -->"


def table(head: str, rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers.

    `head` : names of the columns, as the page has them: `method | seconds | runs`
    """
    names, rows = head.split(" | "), list(rows)
    rule = ["---", *["---:"] * (len(names) - 1)]
    for row in rows:
        if len(row) != len(names):
            raise ValueError(f"a row has {len(row)} cells, and the head {len(names)}: {row}")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, rule, *rows))


def replace_between(page: Path, command: str, text: str) -> None:
    """Write `text` between the markers of a command; all else on the page stays.

    Raises
    ------
    ValueError
        When the page does not have each marker once, in their order.
    """
    begin, end = BEGIN.format(command=command), END.format(command=command)
    content = page.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise ValueError(f"`{page}` must have `{begin}` once, and `{end}` once after it.")
    before, _, rest = content.partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8")


def parser_of(description: str, page: Path) -> argparse.ArgumentParser:
    """Return a parser of the arguments of a script that writes a part of a page, or prints it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--print", action="store_true", help=f"print the text, leave {page.name} alone")
    return parser


def publish(text: str, page: Path, command: str, arguments: argparse.Namespace) -> None:
    """Write the text into its page, or print it where that was asked for."""
    if arguments.print:
        print(text)
    else:
        replace_between(page, command, text)
