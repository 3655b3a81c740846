"""Image bytes: immutable blobs with ids of their own."""
