"""Accuracy, rate and latency of students, through real bitstreams, and of image codecs."""
