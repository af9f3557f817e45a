from misc.errors import first_few


def test_a_long_list_is_cut_and_says_so():
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(["a", "b", "c", "d"]) == "a, b, c, ..."
    assert first_few(range(3), limit=1) == "0, ..."
    assert first_few([]) == ""
