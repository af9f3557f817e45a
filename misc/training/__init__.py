"""The training loop around torchdistill's boxes, its checkpoints and its run folder."""
