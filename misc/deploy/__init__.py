"""Deployment: the edge half and the server half of a student, each loaded without the other."""

from misc.deploy.load import load_edge, load_server

__all__ = ["load_edge", "load_server"]
