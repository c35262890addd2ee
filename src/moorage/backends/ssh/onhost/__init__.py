"""Programs that are sent to a host as text and run there, by whatever Python from 3.7 on there is:
the standard library only, and nothing of ours but each other."""
