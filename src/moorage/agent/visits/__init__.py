"""The processes between a job and those who look into it. Standard library only (keeper)."""
