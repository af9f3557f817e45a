import pytest
from jinja2 import UndefinedError

from misc.reports.page import render

TEXT = "<script>alert('&')</script>"


def test_values_show_as_text_and_a_missing_one_is_an_error():
    page = render("quickstart.html", rows=[["", TEXT], [TEXT, TEXT]], caption=TEXT, conditions={TEXT: TEXT}).decode()
    assert page.count("&lt;script&gt;alert(") == 6 and "<script" not in page
    assert page.startswith("<!doctype html>")
    with pytest.raises(UndefinedError, match="caption"):
        render("quickstart.html", rows=[[""]], conditions={})
