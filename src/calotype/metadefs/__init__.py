"""The catalogue of metadata definitions: which properties things may carry, what they mean, what they apply to."""
