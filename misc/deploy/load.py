"""Load the edge half or the server half of a config's student, without building the other."""

from pathlib import Path

from misc.config.entries import student_path
from misc.config.load import Config
from model.backbone import create_backbone
from model.blueprint import decoder_for
from model.halves import EdgeHalf, ServerHalf, fingerprint_of
from model.weights import check_backbone, load_weights, read_state_dict, read_student


def load_edge(config: Config, weights: str | Path) -> EdgeHalf:
    """Build encoder and entropy model with weights and coder tables.

    Args:
        config: a student's config.
        weights: path of the student's weights.

    Raises:
        UserError: the weights are missing, do not fit, or were trained for another backbone than the config's.
    """
    kwargs = f"{student_path(config)}.kwargs"
    edge = EdgeHalf(config.construct(f"{kwargs}.encoder"), config.construct(f"{kwargs}.entropy_model"))
    state = read_state_dict(weights)
    check_backbone(weights, config.construct(f"{kwargs}.backbone.name"))
    own = {name: tensor for name, tensor in state.items() if name.startswith(("encoder.", "entropy_model."))}
    load_weights(edge, weights, own)
    edge.update()
    return edge.eval()


def load_server(config: Config, weights: str | Path) -> ServerHalf:
    """Build entropy model, decoder and tail with weights and coder tables; of the encoder, only the fingerprint.

    The arguments and errors are those of `load_edge`.
    """
    kwargs = f"{student_path(config)}.kwargs"
    arguments = config.construct(f"{kwargs}.backbone")
    check_backbone(weights, arguments["name"])
    backbone = create_backbone(**arguments)
    entropy_model, wanted = (config.construct(f"{kwargs}.{part}") for part in ("entropy_model", "decoder"))
    blueprint = config.construct(f"{kwargs}.blueprint") if config.has(f"{kwargs}.blueprint") else None
    decoder = decoder_for(backbone, entropy_model.latent_channels, wanted, blueprint)
    server = ServerHalf(entropy_model, decoder, backbone.tail, b"")
    state = read_student(weights, backbone.tail)
    own = {name: tensor for name, tensor in state.items() if not name.startswith("encoder.")}
    load_weights(server, weights, own)
    server.update()
    server.fingerprint = fingerprint_of({**state, **server.state_dict()})
    return server.eval()
