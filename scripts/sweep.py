"""Make every run of a sweep, each in a process of its own, and write one table row per run.

A sweep file lists groups; a group is the product of its configs, the values under `set` and its seeds:

    output: resources/sweeps/priors         # run folders and logs, relative to the repository root
    results: results/priors.csv             # one row per run, relative to the repository root
    maps:                                   # folders of saliency maps, made before the first run that needs them
      resources/saliency_maps/digits/train: # the map_root of such a run
        config: phd_resnet.yaml             # flags of saliency_maps/cam_prep/cam_map_generation.py, without --output
        input: resources/datasets/digits/train
        mix_layers: true
    groups:
      - method: head distillation           # name of the rows in tables and plots (default: the config's name)
        configs: [phd_resnet.yaml]          # relative to the sweep file
        set:
          train.stage1.num_epochs: 3        # one value, or a list: each value makes a run and is part of its name
          lmbda: [0.03, 0.06]
        seeds: [0]                          # default: 0, or the seed of the run it begins with
      - configs: [finetune_resnet.yaml]
        after: [phd_resnet-*]               # one run per matching earlier run, beginning with that run's weights
        name: tuned                         # first part of the runs' names (default: the config's name)
        gpus: 0                             # that each run asks a Ray cluster for (default: 1 if the cluster has any)

Repeat the command to resume, also within a run. A run is made again only if its config, its seed or the weights it
begins with have changed, or its test results are missing. A group starts when the groups before it have ended. A run
that was not run has a row as well, which says so. Runs that fail, or whose maps fail, do not stop the others; they are
listed at the end, and the exit code is 1.
The training time is measured with `--jobs` runs at a time; encoding and decoding at the end, all students in turn,
unless all of them are up to date.

On a cluster whose machines share this folder: `--ray ADDRESS` makes each run a Ray task; a run whose worker dies is
resumed by another. `--list` prints the commands of the runs that are not done, one per line, for other schedulers; a
command that is started again resumes its run:

    python scripts/sweep.py FILE --list --only 'phd_resnet-*' > commands
    sbatch --array=1-$(wc -l < commands) --gpus=1 --wrap 'sh -c "$(sed -n ${SLURM_ARRAY_TASK_ID}p commands)"'

Runs that begin with another run's weights are not listed before that run is done, nor runs that need maps before their
maps are there. Repeated without `--list`, the command makes what is missing and the table.
"""

import argparse
import sys
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

from misc.errors import exit_on_user_error, positive
from misc.sweeps.cluster import ray_cluster
from misc.sweeps.execute import make_runs, time_students
from misc.sweeps.listing import print_commands
from misc.sweeps.plan import names, needed_maps, read_sweep, selected
from misc.sweeps.table import rows_of, summary, write_rows


def get_argparser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("sweep", type=Path, metavar="FILE", help="the sweep file")
    parser.add_argument("--device", help="device of every run (default: that of the run)")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="runs by name, such as phd_* (default: all)")
    parser.add_argument(
        "--jobs", type=positive, metavar="N", help="runs at a time (default: 1; with --ray, all of a group)"
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="make the runs on this Ray cluster: HOST:PORT, auto or local")
    parser.add_argument(
        "--list", action="store_true", help="print the commands of the runs that are not done, make none"
    )
    return parser


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    args = get_argparser().parse_args(argv)
    sweep = read_sweep(args.sweep)
    needs = needed_maps(sweep.runs, sweep.maps)
    groups = selected(sweep.groups, args.only)
    if args.list:
        undone = names([run for run in sweep.runs if not run.is_done()])
        return print_commands([run for run in chain(*groups) if run.name in undone], undone, needs, args.device)

    def write_table() -> None:
        write_rows(sweep.results, [row for run in sweep.runs for row in rows_of(run)])

    jobs = args.jobs or (max(map(len, groups)) if args.ray else 1)
    with ray_cluster(args.ray) if args.ray else nullcontext() as make:
        failed = make_runs(groups, needs, args.device, jobs, write_table, make)
    time_students([run for run in sweep.runs if run.is_done()], args.device)
    write_table()
    print(f"{summary([row for run in sweep.runs for row in rows_of(run)])}\n\nResults: {sweep.results}")
    if failed:
        print(f"{len(failed)} of {sum(map(len, groups))} runs failed: {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
