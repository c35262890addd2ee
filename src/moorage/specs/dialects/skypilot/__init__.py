"""SkyPilot's task files."""
