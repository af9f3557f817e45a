"""Accuracy, rate and time: of students through real bytes, and of image codecs."""
