"""Buckets as directories, by rclone: which program, how it is told, started, watched and ended."""
