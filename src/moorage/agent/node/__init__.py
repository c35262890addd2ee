"""What the node has, what it can do, and whether it is well."""
