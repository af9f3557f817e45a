"""The trained model by name, and its entry."""

import pytest

from misc.config.entries import trained_model, trained_name, without_trained_parts
from misc.errors import UserError


def test_the_student_or_the_model_alone_is_trained():
    assert trained_name(["teacher_model", "student_model"]) == "student_model"
    assert trained_model({"model": 3}) == 3 and trained_model({"teacher_model": 1, "student_model": 2}) == 2
    for names in ({}, {"teacher_model": 1}, {"model": 1, "student_model": 2}):
        with pytest.raises(UserError, match="both or neither"):
            trained_name(names)


def test_an_entry_without_trained_parts_is_a_new_one():
    entry = {"key": "split_classifier", "kwargs": {"trained_parts": {}, "encoder": 1}}
    assert without_trained_parts(entry) == {"key": "split_classifier", "kwargs": {"encoder": 1}}
    assert "trained_parts" in entry["kwargs"]
    assert without_trained_parts({"key": "resnet20"}) == {"key": "resnet20", "kwargs": {}}
