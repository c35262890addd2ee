"""Object stores as the server sees them: who may reach them how, which buckets have a name, what
runs ask of them, and what becomes of a bucket that is not to stay."""
