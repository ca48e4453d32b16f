"""Machine-learned force fields from DFT labels and measured properties, trained together."""

from fusedff import startup

startup.keep_freed_memory()  # before jax starts threads with heaps of their own
startup.keep_compiled()
startup.return_what_compilers_leave()

from fusedff.runs import load  # noqa: E402

__all__ = ["load"]
