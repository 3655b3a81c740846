"""Which operating system is on a disk: found by reading its file systems, in the sandbox, without mounting them."""
