"""Jobs in containers: by moorage itself, or by an engine of the node."""
