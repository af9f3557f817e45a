"""The exported directory: encoder.onnx, edge.json, the client and what it needs; with variable rate, coder.onnx too."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from misc.config.entries import image_transform, num_classes
from misc.config.load import Config
from misc.deploy import edge_client
from misc.deploy.class_names import class_names
from misc.deploy.transform_steps import transform_steps
from misc.errors import UserError
from misc.files import unwritable
from model.halves import EdgeHalf

ENCODER, CODER, DESCRIPTION = "encoder.onnx", "coder.onnx", "edge.json"
CLIENT, REQUIREMENTS = "edge_client.py", "requirements-edge.txt"


def description(config: Config, edge: EdgeHalf, order: list[dict], tables: dict) -> dict[str, Any]:
    """Return the content of edge.json, but for what `write` adds.

    Args:
        config: the student's.
        edge: its edge half.
        order: from `misc.deploy.edge_graph.order_and_tables`, as is the next.
        tables: the coder's.

    Raises:
        UserError: an image transform that cannot be exported.
    """
    gains = edge.entropy_model.gains
    one_rate, variable_rate = edge_client.VERSIONS
    versions = one_rate if gains is None else variable_rate
    return {
        "format": versions.directory,
        "stream": versions.stream,
        **({} if gains is None else {"last_level": gains.last}),
        "fingerprint": edge.fingerprint().hex(),
        "transform": transform_steps(image_transform(config)),
        "max_positions": edge.entropy_model.max_positions,
        "stride": edge.entropy_model.stride,
        "order": order,
        "tables": tables,
        "classes": class_names(config, num_classes(config)),
    }


def write(
    folder: Path,
    graph: onnx.ModelProto,
    precision: str,
    content: dict[str, Any],
    coder: onnx.ModelProto | None = None,
) -> None:
    """Write the files.

    Args:
        folder: an existing one.
        graph: the encoder.
        precision: "float32" or "int8".
        content: from `description`.
        coder: the second graph of a model of variable rate.
    """
    for name in (CLIENT, REQUIREMENTS):
        shutil.copyfile(Path(edge_client.__file__).with_name(name), folder / name)
    whole = {**content, "precision": precision, "sha256": _written(folder / ENCODER, graph)}
    if coder is not None:
        whole["coder_sha256"] = _written(folder / CODER, coder)
    (folder / DESCRIPTION).write_text(json.dumps(whole), encoding="utf-8")


def _written(path: Path, graph: onnx.ModelProto) -> str:
    content = graph.SerializeToString()
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """Yield a temporary folder, and move its files to `output` if the context ends without an error.

    edge.json moves last and holds the encoder's SHA-256, so a mixture of two exports is never taken for one.

    Raises:
        UserError: `output` cannot be written to, or holds files that no export wrote.
    """
    try:
        known = {ENCODER, CODER, DESCRIPTION, CLIENT, REQUIREMENTS, "__pycache__"}
        foreign = set(os.listdir(output)) - known if output.exists() else set()
        if foreign:
            raise UserError(f"{output} holds other files, {sorted(foreign)[0]} among them: choose another folder")
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent)
    except OSError as error:
        raise unwritable(output, error) from None
    with temporary as folder:
        yield Path(folder)
        try:
            output.mkdir(exist_ok=True)
            for name in (ENCODER, CODER, CLIENT, REQUIREMENTS, DESCRIPTION):
                if (Path(folder) / name).exists():
                    os.replace(Path(folder) / name, output / name)
                else:
                    (output / name).unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(output, error) from None
