"""Counts on the command line, as types for argparse."""

import argparse


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    return _at_least(1, text)


def natural(text: str) -> int:
    """Parse an integer of at least 0."""
    return _at_least(0, text)


def _at_least(minimum: int, text: str) -> int:
    number = int(text)
    if number < minimum:
        raise argparse.ArgumentTypeError(f"expected at least {minimum}, not {number}")
    return number
