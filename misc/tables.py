"""Tables of text, for a terminal and for Markdown."""

from collections.abc import Sequence


def text_table(table: Sequence[Sequence[str]]) -> str:
    """Lays a table out for a terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *others in table:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join(("", f"{first:<{widths[0]}}", *cells)))
    return "\n".join(lines)


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Lays header and rows out as a Markdown table."""
    header, *rows = table
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
