"""Saliency maps of a teacher: `cam_prep` makes them once per data set, `cam_loaders` pairs them with their images."""
