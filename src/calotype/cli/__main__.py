"""`python -m calotype.cli`: the same as the command `calotype`."""

from calotype.cli import main

main()
