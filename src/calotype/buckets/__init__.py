"""Named object stores that images come from and go to: `bucket:key`."""
