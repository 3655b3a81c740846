"""Backups of servers that the service keeps: what full-server images are made of."""
