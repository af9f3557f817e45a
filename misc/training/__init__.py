"""Training through torchdistill's boxes: step, loop, record, checkpoints, run folders, dry run."""
