"""The documentation of the endpoints as one plain page, made from OpenAPI; it loads nothing."""

from typing import Any

from jinja2 import Environment

TEMPLATE = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
    """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width">
<title>{{ info.title }}</title>
<h1>{{ info.title }}</h1>
<p>{{ info.description }}
<p>For programs: <a href="/openapi.json">/openapi.json</a>
{% for path, operations in paths.items() %}
{% for method, operation in operations.items() %}
<h2>{{ method.upper() }} {{ path }}</h2>
<p>{{ operation.description }}
{% if operation.requestBody %}
<p>Body: {{ operation.requestBody.content | join(", ") }}. {{ operation.requestBody.description }}
{% endif %}
<table>
{% for status, response in operation.responses.items() %}
<tr><th scope=row>{{ status }}<td>{{ response.description }}<td>{{ response.content | join(", ") }}
{% endfor %}
</table>
{% endfor %}
{% endfor %}
"""
)


def docs_page(openapi: dict[str, Any]) -> str:
    """Return the page, HTML."""
    return TEMPLATE.render(openapi)
