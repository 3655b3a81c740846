"""Other regions of the settings: where images may be copied to, and the client of the image service there."""
