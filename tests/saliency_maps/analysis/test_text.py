"""Lines of text on pictures."""

from saliency_maps.analysis.text import font, shortened


def test_a_long_name_keeps_its_end():
    assert shortened("short", 500) == "short"
    cut = shortened("a_very_long_name_of_a_file_0001", 100)
    assert cut.startswith("…") and cut.endswith("_0001")
    assert 80 < font().getlength(cut) <= 100
    assert shortened("anything", 0) == ""
