"""Read-only parsers of volumes and file systems, as a program of the sandbox.

Every byte they read was written by a stranger. They are Python alone, so the worst that bytes can do is to end them;
they import the standard library and each other, nothing else, because the system's Python runs them (`child.py`),
which knows neither this package nor its dependencies. All of them read through `blocks.Disk`, which counts.
"""
