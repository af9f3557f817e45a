"""A static page that works offline, in light and dark, wide and narrow."""

import html
from collections.abc import Mapping, Sequence
from string import Template


def page(title: str, body: str) -> str:
    """Returns a whole HTML page; `body` is HTML."""
    return _PAGE.substitute(title=html.escape(title), body=body)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns an HTML table of text: header and rows, whose first cells are headers too."""
    header, *others = ([html.escape(cell) for cell in row] for row in rows)
    head = "".join(f"<th scope=col>{cell}</th>" for cell in header)
    body = "\n".join(
        f"<tr><th scope=row>{first}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for first, *cells in others
    )
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def figure(file: str, alternative: str, caption: str) -> str:
    """Returns an image, named relative to the page, and what it shows."""
    return (
        f'<figure><img src="{html.escape(file)}" alt="{html.escape(alternative)}">\n'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def terms(texts: Mapping[str, str]) -> str:
    """Returns a list of texts by heading."""
    items = "\n".join(f"<dt>{html.escape(term)}</dt><dd>{html.escape(text)}</dd>" for term, text in texts.items())
    return f"<dl>\n{items}\n</dl>"


_PAGE = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { --ground: #fff; --text: #1d2127; --quiet: #5b6470; --line: #d9dde2 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15181c; --text: #e6e8eb; --quiet: #a0a8b2; --line: #363c44 }
}
body { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; background: var(--ground); color: var(--text);
  font: 1rem/1.55 system-ui, sans-serif }
h1 { margin: 0 0 .5rem; font-size: 1.75rem; line-height: 1.2 }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.2rem }
p { max-width: 44rem; margin: 0 }
.wide { overflow-x: auto; margin: 1.5rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .4rem 1.25rem .4rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child { text-align: left; white-space: normal; min-width: 12rem }
thead th { color: var(--quiet); font-weight: 500; font-size: .875rem; white-space: normal; vertical-align: bottom }
tbody th { font-weight: 600 }
tr > :last-child { padding-right: 0 }
@media (max-width: 40rem) {
  th, td { padding-right: .75rem; font-size: .8125rem }
  th:first-child { min-width: 7rem }
}
figure { max-width: 60rem; margin: 1.5rem 0 }
img { display: block; width: 100%; height: auto; border-radius: 6px; background: #fff }
figcaption, .note { margin-top: .6rem; color: var(--quiet); font-size: .875rem }
dl { font-size: .875rem }
dt { margin-top: .9rem; font-weight: 600 }
dd { margin: 0; color: var(--quiet); overflow-wrap: anywhere }
</style>
<h1>$title</h1>
$body
</html>
""")
