"""Deployment: the edge half and the server half of a student, each loaded without the other."""
