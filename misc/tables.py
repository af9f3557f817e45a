"""Tables as plain text and as Markdown."""

from collections.abc import Sequence


def text_table(table: Sequence[Sequence[str]]) -> str:
    """Format a table for a terminal: the first column left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for first, *others in table:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join(("", f"{first:<{widths[0]}}", *cells)))
    return "\n".join(lines)


def markdown(table: Sequence[Sequence[str]]) -> str:
    """Format header and rows as a Markdown table."""
    header, *rows = table
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
