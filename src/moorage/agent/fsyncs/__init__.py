"""`fsync` that returns after the upload. Nothing of it is loaded before a job asks for it."""
