"""Buckets that lie on an S3 server."""
