"""Our own writers of compressed formats, on ISA-L: from the bytes that a guest sees to a file."""
