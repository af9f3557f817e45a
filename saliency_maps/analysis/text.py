"""Lines of text on pictures."""

import math
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

LINE, FONT = 20, 13  # pixels
TEXT, QUIET = "#1d2127", "#5b6470"


def write(drawing: Image.Image, place: tuple[int, int], strong: str, quiet: str = "") -> None:
    """Write a line in two colours; parts that do not fit lose their beginnings, which names tend to share."""
    x, y = place
    room = drawing.width - x
    room_of_strong = max(room // 2, room - math.ceil(font().getlength(quiet)))
    for text, colour, end in ((strong, TEXT, x + room_of_strong), (quiet, QUIET, drawing.width)):
        fitting = shortened(text, end - x)
        ImageDraw.Draw(drawing).text((x, y + LINE // 2), fitting, colour, font(), anchor="lm")
        x += round(font().getlength(fitting))


def shortened(text: str, room: int) -> str:
    """Return the longest end of a text that takes at most `room` pixels."""
    if font().getlength(text) <= room:
        return text
    ends = (f"…{text[start:]}" for start in range(1, len(text) + 1))
    return next((end for end in ends if font().getlength(end) <= room), "")


@cache
def font() -> ImageFont.FreeTypeFont:
    """Return a font with letters beyond ASCII, of which Pillow's own has hardly any."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), FONT)
