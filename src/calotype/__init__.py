"""Calotype: a self-hosted service that manages virtual-machine images."""

from typing import Final

VERSION: Final = "0.1.0"
