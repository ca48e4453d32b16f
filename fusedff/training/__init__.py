"""Trainers: DFT labels (force matching), measurements (DiffTRe), and both at once (fused)."""
