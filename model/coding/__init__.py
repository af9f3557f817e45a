"""Entropy coding: latents to bytes and back."""
