"""The catalogue: images, their visibility, members, tags, quotas and states. Knows no job type."""
