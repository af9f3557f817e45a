"""What maps look like and how well they find the object."""
