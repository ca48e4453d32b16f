"""DFT frames: read, checked, split and laid out in batches."""

from pathlib import Path

FILES = Path(__file__).parent / "files"  # what ships with the package
