"""Training and testing with several processes, started by torchrun."""
