"""Where objects lie: masks and boxes from small files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from misc.errors import UserError
from saliency_maps.analysis.objects import Box, boxes_in, mask_of_boxes, masks_in, read_boxes, read_mask


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_both_corners_belong_to_a_box():
    mask = mask_of_boxes([Box(1, 2, 3, 2)], (4, 5))
    expected = np.zeros((4, 5), bool)
    expected[2, 1:4] = True
    assert np.array_equal(mask, expected)
    assert mask_of_boxes([Box(0, 0, 4, 3)], (4, 5)).all()


def test_several_boxes_are_one_mask():
    assert mask_of_boxes([Box(0, 0, 0, 0), Box(4, 3, 4, 3), Box(0, 0, 1, 0)], (4, 5)).sum() == 3


def test_a_box_beyond_the_image_is_refused():
    with pytest.raises(UserError, match="0 0 5 3 goes beyond an image of 5 x 4"):
        mask_of_boxes([Box(0, 0, 5, 3)], (4, 5))


def test_the_layouts_of_train_and_val(tmp_path):
    val = written(tmp_path / "val_annotations.txt", "val_0.JPEG\tn01\t0\t32\t44\t62\nval_1.JPEG\tn02\t5\t6\t7\t8\n\n")
    assert read_boxes(val) == {"val_0.JPEG": [Box(0, 32, 44, 62)], "val_1.JPEG": [Box(5, 6, 7, 8)]}
    train = written(tmp_path / "n01" / "n01_boxes.txt", "n01_0.JPEG\t1\t2\t3\t4\r\nn01_0.JPEG\t5\t6\t7\t8\r\n")
    assert read_boxes(train) == {"n01_0.JPEG": [Box(1, 2, 3, 4), Box(5, 6, 7, 8)]}
    assert read_boxes(tmp_path) == read_boxes(val) | read_boxes(train)


def test_images_get_the_boxes_of_their_file_name_wherever_they_lie(tmp_path):
    val = written(tmp_path / "val_annotations.txt", "val_0.JPEG\tn01\t0\t0\t1\t1\nval_1.JPEG\tn02\t5\t6\t7\t8\n")
    assert boxes_in(val, ["n02/images/val_1.JPEG", "n02/val_7.JPEG"]) == {"n02/images/val_1.JPEG": [Box(5, 6, 7, 8)]}
    with pytest.raises(UserError, match=r"expected val_7.JPEG; the nearest there is 'val_[01].JPEG'"):
        boxes_in(val, ["n02/val_7.JPEG"])
    with pytest.raises(UserError, match=r"may be a/val_0.JPEG or b/val_0.JPEG"):
        boxes_in(val, ["a/val_0.JPEG", "b/val_0.JPEG"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.JPEG\t1\t2\t3", "line 2 is"),
        ("a.JPEG\tn01\t1\t2\t3", "line 2 is"),
        ("a.JPEG\tn01\tx\t1\t2\t3\t4", "line 2 is"),
        ("a.JPEG 1 2 3 4", "line 2 is"),
        ("a.JPEG\t1.5\t2\t3\t4", "line 2 is"),
        ("a.JPEG\t3\t2\t1\t4", "line 2 has the box 3 2 1 4"),
        ("a.JPEG\t-1\t2\t1\t4", "line 2 has the box -1 2 1 4"),
    ],
)
def test_a_line_that_is_no_box_is_named(tmp_path, line, said):
    path = written(tmp_path / "n01_boxes.txt", f"b.JPEG\t1\t2\t3\t4\n{line}\n")
    with pytest.raises(UserError, match=said):
        read_boxes(path)


def test_places_without_boxes_are_named(tmp_path):
    with pytest.raises(UserError, match="no boxes at"):
        read_boxes(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no boxes below"):
        read_boxes(tmp_path)
    (tmp_path / "image.png").write_bytes(b"\xff\xd8")
    with pytest.raises(UserError, match="no file of boxes"):
        read_boxes(tmp_path / "image.png")
    for folder in ("a", "b"):
        written(tmp_path / folder / "n01_boxes.txt", "x.JPEG\t1\t2\t3\t4\n")
    with pytest.raises(UserError, match=r"x.JPEG has boxes in"):
        read_boxes(tmp_path)


def test_masks_are_found_by_name_and_read(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.fromarray(np.array([[0, 255], [127, 128]], np.uint8)).save(tmp_path / "cat" / "1.png")
    found = masks_in(tmp_path, ["cat/1.jpg", "cat/2.jpg"])
    assert found == {"cat/1.jpg": tmp_path / "cat" / "1.png"}
    assert read_mask(found["cat/1.jpg"]).tolist() == [[False, True], [False, True]]


def test_missing_and_empty_masks_are_named(tmp_path):
    with pytest.raises(UserError, match="no masks at"):
        masks_in(tmp_path / "nowhere", ["cat/1.jpg"])
    with pytest.raises(UserError, match=r"expected cat/1.png; there is none"):
        masks_in(tmp_path, ["cat/1.jpg"])
    (tmp_path / "dog").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "dog" / "1.png")
    with pytest.raises(UserError, match=r"none of 1 images has a mask .* the nearest there is 'dog/1.png'"):
        masks_in(tmp_path, ["cat/1.jpg"])
    with pytest.raises(UserError, match="shows no object"):
        read_mask(tmp_path / "dog" / "1.png")
