"""Where the models of a server come from: configs and weights, as its arguments name them."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from misc.config.load import compose_config
from misc.deploy.arguments import weights_of
from misc.deploy.server.models import ServedModel, load_model
from misc.errors import UserError


class Source(NamedTuple):
    """Where a model comes from.

    Attributes:
        name: of the config, for clients.
        config: its absolute path.
        weights: their absolute path.
        overrides: of the config.
    """

    name: str
    config: Path
    weights: Path
    overrides: tuple[str, ...]

    def load(self, device: torch.device, with_examples: bool = False) -> ServedModel:
        """Load the model; arguments and errors are those of `load_model`."""
        config = compose_config(self.config, self.overrides, mode="test")
        return load_model(config, self.name, self.weights, device, with_examples)


def sources_of(
    configs: Sequence[str], weights: Sequence[str | Path] | None, overrides: Sequence[str] = ()
) -> list[Source]:
    """Return a source per config.

    Args:
        configs: paths of students' configs.
        weights: one per config; if there are none, as scripts/decode.py finds them.
        overrides: of each config.

    Raises:
        UserError: a config or weights that are not there, or another number of weights than of configs.
    """
    if weights and len(weights) != len(configs):
        raise UserError(f"weights for {len(weights)} of {len(configs)} configs: give one per config, or none")
    missing = next((path for path in weights or [] if not Path(path).is_file()), None)
    if missing is not None:
        raise UserError(f"no weights at {missing}")
    paths = weights or [_own_weights(config, overrides) for config in configs]
    return [
        Source(config, Path(config).absolute(), Path(path).absolute(), tuple(overrides))
        for config, path in zip(configs, paths, strict=True)
    ]


def _own_weights(path: str, overrides: Sequence[str]) -> Path:
    return weights_of(compose_config(path, overrides, mode="test"), Namespace(config=path, run_dir=None))
