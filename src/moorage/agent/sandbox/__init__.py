"""What a job sees of the file system, and as whom. Standard library only (keeper)."""
