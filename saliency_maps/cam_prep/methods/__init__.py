"""Saliency methods: from a batch of images to a batch of maps."""
