"""Truth on disk: the database, the order of its writes, and the content of uploads."""
