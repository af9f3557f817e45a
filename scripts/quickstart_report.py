"""Report on tested students: results.csv, a rate-accuracy plot, a sheet of saliency maps, and one static page."""

import argparse
import shlex
import sys
from pathlib import Path

from misc.errors import exit_on_user_error
from misc.evaluation.codec_table import read_points
from misc.files import ROOT, write_atomically
from misc.reports import quickstart as report
from misc.tables import text_table
from saliency_maps.analysis.drawing import png
from saliency_maps.analysis.outlined_sheet import outlined_sheet
from saliency_maps.map_folder import MapFolder


def get_argparser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", required=True, action="append", type=Path, metavar="DIR", help="may be repeated")
    parser.add_argument("--codecs", required=True, type=Path, metavar="CSV", help="from scripts/evaluate_codecs.py")
    parser.add_argument("--maps", required=True, type=Path, metavar="DIR", help="saliency maps of the val images")
    parser.add_argument("--dataset", required=True, type=Path, metavar="DIR", help="digits: val/ and val_masks/")
    output = ROOT / "resources" / "quickstart" / "report"
    parser.add_argument(
        "--output", type=Path, default=output, metavar="DIR", help="default: resources/quickstart/report"
    )
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    runs, points, maps = report.read_runs(args.run_dir), read_points(args.codecs), MapFolder(args.maps)
    samples = report.find_samples(args.dataset, maps)
    table = report.summary_table(runs, points)
    caption = report.caption(report.scores_of(samples, maps))
    command = shlex.join(["python", "scripts/quickstart_report.py", *(sys.argv[1:] if argv is None else argv)])
    conditions = report.conditions(runs, maps.manifest.get("command", "unknown"), command)
    files = {
        "results.csv": report.results_csv(report.results_rows(runs, points, args.codecs)).encode(),
        **report.rate_accuracy_plots(runs, points),
        "saliency.png": png(outlined_sheet(samples, maps)),
        "index.html": report.page(table, caption, conditions),
    }
    for name, content in files.items():
        write_atomically(args.output / name, content)
    print(f"\n{text_table(table)}\n\n{caption}\n")
    print("\n".join(str(args.output / name) for name in files))


if __name__ == "__main__":
    main()
