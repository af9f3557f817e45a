"""Processes of torchrun that share one job."""
