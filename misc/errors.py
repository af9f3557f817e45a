"""User errors: one line with cause and remedy, exit code 2, no traceback; and counts on the command line."""

import argparse
import difflib
import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeVar

MAX_CHOICES = 20
T = TypeVar("T")


class UserError(ValueError):
    """An error in the user's input (path, name, value, file); the message is one line."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the nearest choice, or `"; expected one of a, b, c"` if none is close."""
    choices = sorted(map(str, choices))
    near = difflib.get_close_matches(str(name), choices, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    if not choices:
        return ""
    more = f", ... ({len(choices)} in all)" if len(choices) > MAX_CHOICES else ""
    return f"; expected one of {', '.join(choices[:MAX_CHOICES])}{more}"


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return `"; the nearest there is 'x'"`, among the first 10,000 choices, or `"; there is none"`."""
    near = difflib.get_close_matches(name, islice(choices, 10_000), n=1, cutoff=0)
    return f"; the nearest there is '{near[0]}'" if near else "; there is none"


def first_few(items: Sequence[object], limit: int = 3) -> str:
    """Return the first items, `"a, b, c"`, with `", ..."` where there are more."""
    return ", ".join(map(str, items[:limit])) + (", ..." if len(items) > limit else "")


def positive(text: str) -> int:
    """Parse an integer of at least 1, as a type of argparse."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """Parse an integer of at least 0, as a type of argparse."""
    return _at_least(0, text)


def _at_least(minimum: int, text: str) -> int:
    number = int(text)
    if number < minimum:
        raise argparse.ArgumentTypeError(f"expected at least {minimum}, not {number}")
    return number


def exit_on_user_error(main: Callable[..., T]) -> Callable[..., T]:
    """Decorate a command's `main`: turn a UserError into one line on stderr and exit code 2.

    Only the last line of the message is printed: an error in a DataLoader worker arrives with its traceback before it.
    """

    @functools.wraps(main)
    def run(*args, **kwargs) -> T:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            message = str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.UserError: ")
            print(f"error: {message}", file=sys.stderr)
            sys.exit(2)

    return run
