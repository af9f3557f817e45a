"""The server: streams to classes or features over HTTP."""
