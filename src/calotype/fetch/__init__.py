"""Fetching bytes from URLs that users give. Nothing is sent that the rules have not let pass."""
