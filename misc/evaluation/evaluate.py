"""The final test: every image through a real bitstream, with the results as a table and as test.json."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401  torchdistill looks torchvision.datasets up in sys.modules
from torch import nn
from torch.utils.data import DataLoader
from torchdistill.datasets.util import build_data_loader

from misc.config.entries import trained_model
from misc.distributed.batches import SomeBatches, shared
from misc.distributed.ranks import ALONE, Ranks
from misc.errors import UserError
from misc.evaluation.accuracy import KILOBYTE, Accuracy, estimate, evaluate_classifier, labels_of
from misc.evaluation.curves import Point, bd_rate
from misc.evaluation.intervals import margin_of
from misc.evaluation.timing import latency
from misc.files import write_atomically
from misc.progress import advance, progress_bar
from model.coding.bitstream import unpack
from model.split import SplitClassifier

LOSS = "predictive loss, 95 % interval"  # heading of a column


def evaluate(
    config: dict,
    models: dict[str, nn.Module],
    device: torch.device,
    student_only: bool,
    run_dir: Path,
    origin: dict,
    ranks: Ranks,
    rate: float | None = None,
    anchors: Mapping[str, Sequence[Point]] | None = None,
) -> None:
    """Evaluate on `config["test"]`, print the results as a table and write them to test.json in the run folder.

    A student of variable rate is evaluated at every level, unless a rate is given. Losses against the teacher have a
    paired interval, which takes a loader that always has the same order. test.json does not keep the hits by image.

    Args:
        config: as `misc.config` constructs it.
        models: by their names in the config.
        device: where the models are.
        student_only: leave the teacher out.
        run_dir: folder of test.json.
        origin: what test.json records beside the results: command, revision, seed and the like.
        ranks: processes that share the images.
        rate: of a student of variable rate, in [0, 1].
        anchors: curves of other methods by name, whose BD-rates are printed.

    Raises:
        UserError: a rate for a student that has one rate.
    """
    loader = evaluation_loader(config, ranks)
    results: dict[str, Any] = {}
    trained = trained_model(models)
    level = _level(trained, rate)
    if "teacher_model" in models and not student_only:
        results["teacher"] = evaluate_classifier(models["teacher_model"], loader, device, "teacher", ranks)
    if isinstance(trained, SplitClassifier):
        trained.update()
        if trained.entropy_model.gains is not None and rate is None:
            results["levels"] = evaluate_levels(trained, loader, device, ranks)
            results["student"] = next(row for row in results["levels"] if row["level"] == level)
        else:
            results["student"] = evaluate_student(trained, loader, device, ranks, level)
        if ranks.first:  # the other ranks wait, so that the cores are free
            results["latency"] = latency(trained, loader, device)
        ranks.wait()
    else:
        results["model"] = evaluate_classifier(trained, loader, device, "model", ranks)
    if not ranks.first:
        return
    _compare(results)
    print(f"\nTest on {len(loader.dataset):,} images\n{results_table(results)}\n")
    if "levels" in results:
        print(f"{levels_table(results['levels'], anchors or {})}\n")
    path = run_dir / "test.json"
    write_atomically(path, json.dumps({**results, **origin}, indent=1).encode())
    print(f"Results: {path}")


def evaluation_loader(config: dict, ranks: Ranks = ALONE) -> DataLoader:
    """Return the loader that a config's `test` describes, restricted to this rank's batches."""
    loader_config = shared(config["test"]["test_data_loader"], SomeBatches, ranks)
    return build_data_loader(config["datasets"][loader_config["dataset_id"]], loader_config, distributed=False)


def predictive_loss(teacher: Sequence[bool], student: Sequence[bool]) -> dict[str, float | None]:
    """Return the teacher's top-1 minus the student's, and how far its 95 % confidence interval reaches to either side.

    The interval is that of the mean of paired differences, by Student's t. Images that both classify right, or both
    wrong, do not widen it.

    Args:
        teacher: whether each image is classified right.
        student: the same, of the same images in the same order.

    Returns:
        predictive_loss and predictive_loss_margin, in points; the margin is None if all differences are equal.
    """
    loss = 100 * sum(teacher) / len(teacher) - 100 * sum(student) / len(student)
    differences = np.subtract(teacher, student, dtype=float)
    if np.ptp(differences) == 0:
        return {"predictive_loss": loss, "predictive_loss_margin": None}
    margin = margin_of(differences.std(ddof=1), len(differences))
    return {"predictive_loss": loss, "predictive_loss_margin": 100 * margin}


def _compare(results: dict[str, Any]) -> None:
    """Remove the hits from all results and, if the teacher was tested, add the losses against it; in place."""
    tested = [*results.get("levels", ()), *(results[name] for name in ("student", "model") if name in results)]
    if "teacher" in results:
        for row in tested:
            row |= predictive_loss(results["teacher"]["hits"], row["hits"])
        results |= {name: tested[-1][name] for name in ("predictive_loss", "predictive_loss_margin")}
    for row in [*tested, results.get("teacher", {})]:
        row.pop("hits", None)


def _level(trained: nn.Module, rate: float | None) -> int | None:
    if isinstance(trained, SplitClassifier):
        return trained.entropy_model.level_of(rate)
    if rate is not None:
        raise UserError("--rate is for a student with `levels`: this is a classifier")
    return None


def evaluate_levels(
    student: SplitClassifier, loader: DataLoader, device: torch.device, ranks: Ranks = ALONE
) -> list[dict[str, Any]]:
    """Return `evaluate_student` at every trained level of a model of variable rate, with rate, level and lmbda.

    The middle level, the default of encoders, is among them even where no level was trained there.
    """
    gains = student.entropy_model.gains
    rows = []
    for level in sorted({*gains.trained(), student.entropy_model.level_of(None)}):
        lmbda = float(gains(torch.tensor([level], device=device)).lmbda)  # float32: six digits are right
        found = evaluate_student(student, loader, device, ranks, level)
        rows.append({"rate": level / gains.last, "level": level, "lmbda": float(f"{lmbda:.6g}"), **found})
    return rows


@torch.inference_mode()
def evaluate_student(
    student: SplitClassifier,
    loader: DataLoader,
    device: torch.device,
    ranks: Ranks = ALONE,
    level: int | None = None,
) -> dict[str, Any]:
    """Encode every image to a bitstream, decode it, and classify.

    The coder's tables must exist (`update()`). A model of variable rate is evaluated at `level`, by default its middle.

    Returns:
        images; top1, top5 in percent; hits, whether top-1 is right for each image; strings_kb (the entropy-coded
        strings alone, as the paper counts), sent_kb (the whole stream) and their standard deviations over images, 1 kB
        = 1024 bytes; bpp_bytes and bpp_likelihood, bits per pixel of the network's input from the strings and from the
        likelihoods; edge_parameters, edge_kb (float32) and edge_kb_times_data_kb, the product of the encoder's size and
        strings_kb.
    """
    student.eval()
    accuracy = Accuracy()
    strings: list[int] = []
    sent: list[int] = []
    bits: list[float] = []
    pixels: list[int] = []
    with progress_bar(None, "student through bytes" if level is None else f"level {level}", len(loader.dataset)) as bar:
        for x, targets, *_ in loader:
            x, labels = x.to(device), labels_of(targets).to(device)
            streams = student.encode(x, level)
            accuracy.update(student.decode(streams), labels)
            strings += [len(unpack(stream).payload) for stream in streams]
            sent += map(len, streams)
            bits.append(float(estimate(student, x, level)[1].sum()))
            pixels.append(x.shape[-2] * x.shape[-1])
            advance(bar, len(x) * ranks.world_size)
    accuracy = accuracy.of_all(ranks)
    strings, sent, bits, (*_, pixels) = map(ranks.gather, (strings, sent, bits, pixels))
    top1, top5 = accuracy.percent()
    strings_kb = torch.tensor(strings, dtype=torch.float64) / KILOBYTE
    sent_kb = torch.tensor(sent, dtype=torch.float64) / KILOBYTE
    edge_parameters = student.edge_parameters()
    edge_kb = 4 * edge_parameters / KILOBYTE
    return {
        "images": accuracy.images,
        "top1": top1,
        "top5": top5,
        "hits": accuracy.hits,
        "strings_kb": float(strings_kb.mean()),
        "strings_kb_std": float(strings_kb.std(correction=0)),
        "sent_kb": float(sent_kb.mean()),
        "sent_kb_std": float(sent_kb.std(correction=0)),
        "bpp_bytes": float(strings_kb.mean()) * KILOBYTE * 8 / pixels,
        "bpp_likelihood": sum(bits) / accuracy.images / pixels,
        "edge_parameters": edge_parameters,
        "edge_kb": edge_kb,
        "edge_kb_times_data_kb": edge_kb * float(strings_kb.mean()),
    }


def results_table(results: dict) -> str:
    """Lay the results of `evaluate` out as text; they hold "teacher", "student" and "latency", or "model"."""
    rows = []
    for name in ("model", "teacher", "student"):
        if name in results:
            rows.append((f"{name} top-1 / top-5", f"{results[name]['top1']:.2f} % / {results[name]['top5']:.2f} %"))
    if "predictive_loss" in results:
        rows.append(("predictive loss", _loss_with_interval(results)))
    if "student" in results:
        rows += _size_rows(results["student"])
    if "latency" in results:
        encode_ms, decode_ms = results["latency"].values()
        rows.append(("encode / decode, one image", f"{encode_ms:.1f} ms / {decode_ms:.1f} ms"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def levels_table(levels: Sequence[dict], anchors: Mapping[str, Sequence[Point]]) -> str:
    """Lay the curve of `evaluate_levels` out as text, with its BD-rate against each anchor."""
    header = "  rate    lmbda  bytes sent     top-1"
    lines = [f"{header}  {LOSS}" if "predictive_loss" in levels[0] else header]
    for row in levels:
        size = row["sent_kb"] * KILOBYTE
        line = f"  {row['rate']:.2f}  {row['lmbda']:7.4g}  {size:10.1f}  {row['top1']:6.2f} %"
        lines.append(f"{line}  {_loss_with_margin(row):>{len(LOSS)}}" if "predictive_loss" in row else line)
    points = [Point(row["sent_kb"] * KILOBYTE, row["top1"]) for row in levels]
    for name, curve in anchors.items():
        found = bd_rate(curve, points)
        text = "not defined, as the curves share less than a point of top-1"
        if found is not None:
            text = f"{found.percent:+.1f} % ({found.low:.2f} to {found.high:.2f} % top-1)"
        lines.append(f"  BD-rate against {name}: {text}")
    return "\n".join(lines)


def _loss_with_interval(results: dict) -> str:
    loss, margin = results["predictive_loss"], results["predictive_loss_margin"]
    interval = "" if margin is None else f" (95 % interval {loss - margin:.2f} to {loss + margin:.2f})"
    return f"{loss:.2f} points{interval}"


def _loss_with_margin(results: dict) -> str:
    loss, margin = results["predictive_loss"], results["predictive_loss_margin"]
    return f"{loss:.2f}" if margin is None else f"{loss:.2f} ± {margin:.2f}"


def _size_rows(student: dict) -> list[tuple[str, str]]:
    size = "{:.4f} ± {:.4f} kB/image ({:.1f} bytes)".format
    return [
        ("strings", size(student["strings_kb"], student["strings_kb_std"], student["strings_kb"] * KILOBYTE)),
        ("everything sent", size(student["sent_kb"], student["sent_kb_std"], student["sent_kb"] * KILOBYTE)),
        ("bpp from bytes / likelihoods", f"{student['bpp_bytes']:.4f} / {student['bpp_likelihood']:.4f}"),
        ("encoder", f"{student['edge_parameters']:,} parameters, {student['edge_kb']:.1f} kB"),
        ("encoder kB x data kB", f"{student['edge_kb_times_data_kb']:.2f}"),
    ]
