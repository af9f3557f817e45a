"""From latents to bytes and back."""
