"""What things cost: speed and memory, measured in turns."""
