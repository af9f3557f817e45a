"""Long checks: kills, damaged bytes, every config."""
