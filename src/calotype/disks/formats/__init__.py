"""What a file is, by its bytes: pure parsers that read through `DiskFile` and open nothing themselves.

A parser returns `Facts` or raises `FormatMismatch` (not that format, or fields that make no sense), `TruncatedDisk`
(something it refers to is not in the file), `UnsafeDisk` (it refers to something outside itself, or is encrypted) or
`DiskTooLarge`. It never raises anything else, whatever the bytes are, and never allocates by what a file says.
"""
