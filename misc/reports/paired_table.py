"""The table of methods compared seed by seed, and what it says in words."""

from collections.abc import Sequence

from misc.reports.paired import Comparison, Estimate
from misc.sweeps.table import NOT_RUN

RULE = (
    "Means ± standard deviations over seeds, in brackets how many. Each pair of runs begins with the same weights and "
    "has the same seed. Per seed, straight lines of top-1 over the logarithm of the bytes are compared over the bytes "
    "that both span; bytes at equal top-1 follow by the mean slope of the first row's lines, whose own spread is left "
    "out. A difference is shown where the 95 % interval of the mean (Student's t over seeds, for each row by itself) "
    "leaves zero out; the sentence's intervals are these."
)


def paired_table(methods: Sequence[Comparison]) -> list[list[str]]:
    """Returns header and a row for each method, the reference first: means, then differences to the reference."""
    header = [column for lmbda in methods[0].means for column in (f"bytes, lmbda {lmbda}", f"top-1 %, lmbda {lmbda}")]
    table = [["", *header, "top-1 at equal bytes, points", "bytes at equal top-1, %"]]
    for number, method in enumerate(methods):
        means = [cell for pair in method.means.values() for cell in _mean_cells(pair)]
        table.append([method.method, *means, *(_difference_cells(method) if number else ("", ""))])
    return table


def _mean_cells(means: tuple[Estimate, Estimate] | None) -> tuple[str, str]:
    if means is None:
        return NOT_RUN, NOT_RUN
    size, top1 = means
    return f"{size.mean:,.1f}", _with_spread(top1, ".2f")


def _difference_cells(method: Comparison) -> tuple[str, str]:
    if not method.pairs:
        return NOT_RUN, NOT_RUN
    if method.top1 is None:
        return "no bytes in common", ""
    rate = _with_spread(method.rate, "+.1f") if method.rate else "not determined"
    return _with_spread(method.top1, "+.2f"), rate


def _with_spread(estimate: Estimate, form: str) -> str:
    """Returns `mean ± standard deviation (seeds)`; no deviation of one seed."""
    spread = "" if estimate.deviation is None else f" ± {estimate.deviation:{form.lstrip('+')}}"
    return f"{estimate.mean:{form}}{spread} ({estimate.seeds})"


def _intervals(method: Comparison) -> str:
    """Returns the intervals of a method's mean differences in brackets; nothing where there is no verdict."""
    if method.top1 is None or method.top1.sign is None:
        return ""
    rate = f"; bytes {_interval(method.rate)} %" if method.rate else ""
    return f" ({_interval(method.top1)} points{rate})"


def _interval(difference: Estimate) -> str:
    return f"{difference.mean - difference.margin:+z.1f} to {difference.mean + difference.margin:+z.1f}"


def conclusion(methods: Sequence[Comparison]) -> str:
    """Says which methods' top-1 differs from the reference's at equal bytes, and the intervals of both differences."""
    reference, *others = methods
    kinds = {1: "higher with", -1: "lower with", 0: "not shown to differ with", None: "known of too few seeds with"}
    found: dict[str, list[str]] = {text: [] for text in (*kinds.values(), "not compared with")}
    for other in others:
        kind = kinds[other.top1.sign] if other.top1 else "not compared with"
        found[kind].append(f'"{other.method}"{_intervals(other)}')
    said = "; ".join(f"{text} {', '.join(names)}" for text, names in found.items() if names)
    return f'At equal bytes and against "{reference.method}", top-1 is {said}.'
