"""Servers, volumes and backups: where images that are not made from files come from."""
