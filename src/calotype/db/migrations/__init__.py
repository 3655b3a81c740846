"""Numbered steps of the schema, only forward; each works with the code of the release before."""
