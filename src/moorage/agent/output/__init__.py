"""What attempts print: watched, paged out, bounded."""
