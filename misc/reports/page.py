"""Static HTML pages that work offline, in light and dark, wide and narrow."""

from jinja2 import Environment, PackageLoader, StrictUndefined

_TEMPLATES = Environment(
    loader=PackageLoader("misc.reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: object) -> bytes:
    """Return the page that a file in templates/ describes, as UTF-8; all values are escaped."""
    return _TEMPLATES.get_template(template).render(values).encode()
