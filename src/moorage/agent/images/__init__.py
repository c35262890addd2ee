"""Images of containers: read, fetched, and unpacked once a node."""
