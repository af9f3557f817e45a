"""The two halves of a student, as device and server load them."""
