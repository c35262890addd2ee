"""The kinds of object stores: one module a kind, and the registry of them."""
