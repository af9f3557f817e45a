"""Runs every experiment of a sweep, each in a process of its own, and writes one table row for each.

A sweep file lists groups; a group is the product of its configs, the values under `set` and its seeds:

    output: resources/sweeps/priors         # run folders and logs, relative to the repository root
    results: results/priors.csv             # one row per run, relative to the repository root
    maps:                                   # folders of saliency maps, made in front of the first run that needs them
      resources/saliency_maps/digits/train: # the map_root of such a run
        config: phd_resnet.yaml             # flags of saliency_maps/cam_prep/cam_map_generation.py, without --output
        input: resources/datasets/digits/train
        mix_layers: true
    groups:
      - method: head distillation           # what the rows are called in tables and plots (default: the config's name)
        configs: [phd_resnet.yaml]          # relative to the sweep file
        set:
          train.stage1.num_epochs: 3        # one value, or a list of which each makes a run and names it
          lmbda: [0.03, 0.06]
        seeds: [0]                          # default, or the seed of the run that it begins with
      - configs: [finetune_resnet.yaml]
        after: [phd_resnet-*]               # one run for each of these earlier ones, whose weights it begins with
        name: tuned                         # what the runs are called (default: the config's name)

A sweep given again goes on, also in the middle of a run: one is made anew only where its config, its seed or another
run's weights that it begins with have changed since, or where its test is missing. Runs begin from scratch, or from
what `after` or their config's `trained_parts` names; a group begins when those before it have ended. What was not run
has a row too, which says so. A run that fails, or whose maps fail, is reported at the end, after the others, and makes
the exit code 1.
Training is timed with `--jobs` runs on the machine; encoding and decoding at the end, all students in turn, as soon as
one of them has not been.
"""

import argparse
import fnmatch
import functools
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from misc.errors import UserError, did_you_mean, exit_on_user_error
from misc.files import ROOT
from misc.progress import progress_bar
from misc.sweeps.execute import log_of, make, time_students
from misc.sweeps.maps import read_maps
from misc.sweeps.plan import names, needed_maps, read_sweep
from misc.sweeps.table import row_of, table, write_rows

NOT_RUN = "not run"


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("sweep", type=Path, metavar="FILE", help="the sweep file")
    parser.add_argument("--device", help="of every run; default: a run's own")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="runs by name, as phd_* (default: all)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: %(default)s)")
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    sweep, groups = read_sweep(args.sweep)
    runs = [run for group in groups for run in group]
    needs = needed_maps(runs, read_maps(sweep.get("maps", {}), args.sweep))
    groups = [[run for run in group if fnmatch.fnmatchcase(run.name, args.only)] for group in groups]
    chosen = [run for group in groups for run in group]
    if not chosen:
        raise UserError(f"--only {args.only} names none of the {len(runs)} runs{did_you_mean(args.only, names(runs))}")
    failed = []
    make_maps = functools.cache(lambda maps: maps.make(args.device))
    with ThreadPoolExecutor(args.jobs) as pool, progress_bar(None, "sweep", len(chosen), unit="runs") as bar:
        for group in groups:
            lacking = [run for run in group if needs[run] and not run.is_done() and not make_maps(needs[run])]
            for run in lacking:
                failed.append(f"{run.name} (its maps)")
                bar.write(f"{run.name}: not begun, as its maps failed: {needs[run].folder}")
                bar.update()
            ready = [run for run in group if run not in lacking]
            for run, succeeded in pool.map(lambda run: (run, run.is_done() or make(run, args.device)), ready):
                if not succeeded:
                    failed.append(run.name)
                    bar.write(f"{run.name}: failed, see {log_of(run)}")
                bar.update()
                write_rows(ROOT / sweep["results"], [row_of(run) for run in runs])
    done = [run for run in runs if run.is_done()]
    time_students(done, args.device)
    rows = [row_of(run) for run in runs]
    write_rows(ROOT / sweep["results"], rows)
    print(f"{table(rows)}\n\nResults: {ROOT / sweep['results']}")
    if failed:
        print(f"{len(failed)} of {len(chosen)} runs failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
