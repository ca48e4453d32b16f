"""Machine-learned force fields from DFT labels and measured properties, trained together."""

from fusedff import allocator

allocator.keep_freed_memory()  # before jax starts threads with heaps of their own

from fusedff.runs import load  # noqa: E402

__all__ = ["load"]
