"""DFT frames, measurements and reference values: read, checked, split."""

from pathlib import Path

FILES = Path(__file__).parent / "files"  # what ships with the package
