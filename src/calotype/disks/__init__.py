"""Disk images: what they are (formats, the gate) and how they are converted (the sandbox). Knows nothing of images."""
