import pytest

from misc.deploy.server.limits import read_token
from misc.errors import UserError


def test_a_token_is_read_without_the_white_space_around_it(tmp_path):
    path = tmp_path / "token"
    path.write_text("  secret-1\n")
    assert read_token(path) == "secret-1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no token"),
        (b" \n", "holds no token"),
        (b"two words", "holds no token"),
        (b"a\0b", "holds no token"),
        ("pässword".encode(), "not ASCII"),
        (None, "No such file"),
    ],
)
def test_what_is_no_token_is_refused(tmp_path, content, message):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as refusal:
        read_token(path)
    assert "\n" not in str(refusal.value)
