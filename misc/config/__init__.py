"""Experiment configs: composed from YAML files, checked, constructed."""

from misc.config.entries import image_transform
from misc.config.load import Config, LoadedConfig, compose_config, load_config, read_plain

__all__ = ["Config", "LoadedConfig", "compose_config", "image_transform", "load_config", "read_plain"]
