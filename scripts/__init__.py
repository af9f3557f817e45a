"""Commands: arguments, calls, prints."""
