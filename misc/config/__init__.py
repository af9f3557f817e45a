"""Configs: base and difference, checked before anything is built."""
