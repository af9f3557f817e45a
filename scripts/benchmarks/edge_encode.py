"""Time the encoding of one image: PyTorch, the exported client, the page's modules under node, image codecs."""

import io
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from misc.config.load import Config
from misc.deploy.edge_client import EdgeEncoder
from misc.deploy.load import load_edge
from misc.deploy.sample_images import generated_samples, loaded, test_samples
from misc.devices import one_core
from misc.errors import UserError
from misc.files import ROOT
from misc.progress import progress_bar

SIZES = (64, 224)
WARM_UP = 5
TORCH, FLOAT, INT8, WASM = "torch", "ONNX float32", "ONNX int8", "onnxruntime-web, node"
CODECS = {"JPEG": 20, "WebP": 5}  # qualities at which accuracy is near the students'
VENDOR = ROOT / "misc/deploy/page/vendor"
NODE_ENDED = "node ended: see its message above"
NETWORK, WHOLE = "network", "image to stream"
Side = Callable[[], float]


def encode_table(config: Config, weights: Path, exports: Path, rounds: int) -> list[list[str]]:
    """Return milliseconds and ratios of every side at 64 x 64 and 224 x 224, on one thread.

    A hyperprior's exported network includes h_a and h_s; PyTorch's is g_a alone.

    Args:
        config: the student's.
        weights: the student's.
        exports: folder with the exports `float32` and `int8`.
        rounds: in which each side runs once, after five for warm-up.
    """
    image = loaded((test_samples(config) or generated_samples(1)).images[0])
    edge = load_edge(config, weights).to(memory_format=torch.channels_last)
    rows = [["", *(f"{size} x {size} {part}" for size in SIZES for part in (NETWORK, WHOLE))]]
    columns: list[dict[str, str]] = []
    with one_core(), torch.inference_mode():
        for size in SIZES:
            with ExitStack() as stack:
                folders = {name: resized(exports / name, size) for name in ("float32", "int8")}
                for part, sides in sides_of(edge, folders, image, stack).items():
                    columns.append(cells(in_turns(sides, rounds, f"{size} x {size}, {part}")))
    names = dict.fromkeys(name for column in columns for name in column)
    return rows + [[name, *(column.get(name, "") for column in columns)] for name in names]


def resized(folder: Path, size: int) -> Path:
    """Return a copy of an export whose transform makes images of this size."""
    copy = folder.with_name(f"{folder.name}-{size}")
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    edge = json.loads((copy / "edge.json").read_text())
    for step in edge["transform"]:
        for name in {"size", "height", "width"} & step.keys():
            step[name] = [size, size] if isinstance(step[name], list) else size
    (copy / "edge.json").write_text(json.dumps(edge))
    return copy


def torch_transform(steps: list[dict[str, Any]]) -> v2.Compose:
    """Return edge.json's transform as torchvision's."""
    made = {
        "resize": lambda size, interpolation: v2.Resize(size, InterpolationMode(interpolation)),
        "center_crop": lambda height, width: v2.CenterCrop((height, width)),
        "scale": lambda factor: v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
        "normalize": lambda mean, std: v2.Normalize(mean, std),
    }
    return v2.Compose([made[step["op"]](**{name: step[name] for name in step if name != "op"}) for step in steps])


def sides_of(edge, folders: dict[str, Path], image: Image.Image, stack: ExitStack) -> dict[str, dict[str, Side]]:
    """Return, for the network alone and for the whole encoding, a function per side that returns its milliseconds."""
    clients = {FLOAT: EdgeEncoder(folders["float32"]), INT8: EdgeEncoder(folders["int8"])}
    transform = torch_transform(json.loads((folders["float32"] / "edge.json").read_text())["transform"])
    x = transform(image)[None]
    x_last = x.to(memory_format=torch.channels_last)
    network: dict[str, Side] = {TORCH: timed(lambda: edge.encoder(x_last))}
    whole: dict[str, Side] = {TORCH: timed(lambda: edge.encode(transform(image)[None]))}
    for name, client in clients.items():
        network[name] = timed(lambda client=client: client.run(x.numpy()))
        whole[name] = timed(lambda client=client: client.encode(image))
    if shutil.which("node") and VENDOR.is_dir():
        ask = stack.enter_context(node(folders["float32"], image))
        network[WASM], whole[WASM] = lambda: ask(NETWORK), lambda: ask(WHOLE)
    else:
        print(f"{WASM}: not measured, needs Node.js and `bash scripts/vendor_page.sh`", file=sys.stderr)
    crop = v2.Compose([part for part in transform.transforms if isinstance(part, v2.Resize | v2.CenterCrop)])
    for name, quality in CODECS.items():
        whole[f"{name}, quality {quality}"] = timed(
            lambda name=name, quality=quality: crop(image).save(io.BytesIO(), name, quality=quality)
        )
    return {NETWORK: network, WHOLE: whole}


def timed(step: Callable[[], object]) -> Side:
    """Return a function that runs a step and returns its milliseconds."""

    def side() -> float:
        start = time.perf_counter()
        step()
        return 1000 * (time.perf_counter() - start)

    return side


@contextmanager
def node(folder: Path, image: Image.Image) -> Iterator[Callable[[str], float]]:
    """Yield a function that lets the page's modules encode an image under node, and returns node's own milliseconds."""
    command = ["node", str(Path(__file__).with_name("edge_wasm.mjs")), str(folder), str(image.width), str(image.height)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None

        def write(content: bytes) -> None:
            try:
                process.stdin.write(content)
                process.stdin.flush()
            except BrokenPipeError as error:
                raise UserError(NODE_ENDED) from error

        def ask(part: str) -> float:
            write(b"n" if part == NETWORK else b"w")
            line = process.stdout.readline()
            if not line:
                raise UserError(NODE_ENDED)
            return float(line)

        try:
            write(image.convert("RGBA").tobytes())
            yield ask
        finally:
            with suppress(BrokenPipeError):  # of what is still buffered
                process.stdin.close()


def in_turns(sides: dict[str, Side], rounds: int, title: str) -> dict[str, list[float]]:
    """Return the milliseconds of each side, one value per round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in progress_bar(range(WARM_UP + rounds), title, unit="rounds"):
        for name, side in sides.items():
            times[name].append(side())
    return {name: values[WARM_UP:] for name, values in times.items()}


def cells(times: dict[str, list[float]]) -> dict[str, str]:
    """Return "median ms (median ratio to the first side in the same round)" of each side."""
    base = next(iter(times.values()))
    ratios = {
        name: statistics.median(a / b for a, b in zip(values, base, strict=True)) for name, values in times.items()
    }
    return {name: f"{statistics.median(values):.2f} ms ({ratios[name]:.2f})" for name, values in times.items()}
