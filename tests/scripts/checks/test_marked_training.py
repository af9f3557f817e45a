from misc.training import loop
from scripts.checks.marked_training import patch_training


def test_the_mark_exists_while_a_training_validates_even_if_that_fails(tmp_path, monkeypatch):
    mark, seen = tmp_path / "mark", []

    def validate(number: int) -> float:
        seen.append(mark.exists())
        return 1 / number

    monkeypatch.setattr(loop, "validate", validate)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", loop.CHECKPOINT_EVERY)
    patch_training(mark, 2.5)
    assert loop.CHECKPOINT_EVERY == 2.5 and loop.validate(4) == 0.25 and not mark.exists()
    try:
        loop.validate(0)
    except ZeroDivisionError:
        assert not mark.exists()
    assert seen == [True, True]
