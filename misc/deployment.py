"""The halves of a config's student, each built without the other: nothing of the server runs on the edge."""

from collections.abc import Callable
from pathlib import Path

from PIL.Image import Image
from torch import Tensor

from misc.config import Config
from misc.errors import UserError
from misc.weights import read_student
from model.backbone import create_backbone, load_weights, read_state_dict
from model.halves import EdgeHalf, ServerHalf, fingerprint_of


def student_path(config: Config) -> str:
    """Returns where in the config the student is.

    Raises:
        UserError: it has none.
    """
    for path in ("models.student_model", "models.model"):
        if config.has(path) and config.construct(f"{path}.key") == "split_classifier":
            return path
    raise UserError("the config has no split classifier: give the config of a student")


def load_edge(config: Config, weights: str | Path) -> EdgeHalf:
    """Builds encoder and entropy model, with their weights and tables; neither decoder nor backbone.

    Args:
        config: of a student.
        weights: the student's.

    Raises:
        UserError: weights that are missing or do not fit.
    """
    kwargs = f"{student_path(config)}.kwargs"
    edge = EdgeHalf(config.construct(f"{kwargs}.encoder"), config.construct(f"{kwargs}.entropy_model"))
    state = read_state_dict(weights)
    load_weights(
        edge, weights, {name: state[name] for name in state if name.startswith(("encoder.", "entropy_model."))}
    )
    edge.update()
    return edge.eval()


def load_server(config: Config, weights: str | Path) -> ServerHalf:
    """Builds entropy model, decoder and tail, with their weights and tables; of the encoder only the fingerprint.

    Arguments and errors are those of `load_edge`.
    """
    kwargs = f"{student_path(config)}.kwargs"
    tail = create_backbone(**config.construct(f"{kwargs}.backbone")).tail
    entropy_model, decoder = (config.construct(f"{kwargs}.{part}") for part in ("entropy_model", "decoder"))
    server = ServerHalf(entropy_model, decoder, tail, b"")
    state = read_student(weights, tail)
    mine = {name: tensor for name, tensor in state.items() if not name.startswith("encoder.")}
    load_weights(server, weights, mine)
    server.update()
    server.fingerprint = fingerprint_of({**state, **server.state_dict()})
    return server.eval()


def image_transform(config: Config) -> Callable[[Image], Tensor]:
    """Returns what the config's test does to an RGB image, without building its data set."""
    dataset = config.construct("test.test_data_loader.dataset_id")
    return config.construct(f"datasets.{dataset}.init.kwargs.transform")
