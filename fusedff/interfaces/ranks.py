"""Communication between the MPI processes (ranks) of one program, with mpi4py; a single process needs no MPI."""

import platform
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np


class Gathered(NamedTuple):
    """The atoms of all ranks, ordered by ID."""

    types: np.ndarray  # (n,) int, LAMMPS atom types
    positions: np.ndarray  # (n, 3) Å
    owner: np.ndarray  # (n,) int, the rank that sent each atom
    local_indices: np.ndarray  # (n_own,) int, indices of the atoms of this rank, in the order in which it sent them


class Ranks:
    """Collective operations, which every rank must call in the same order; `communicator` is None for one process.

    The devices (GPUs) of a machine are assigned to its ranks in turn.
    """

    def __init__(self, communicator=None):
        self.communicator, self.rank, self.size, self.device = communicator, 0, 1, None
        if communicator is not None:
            self.rank, self.size = communicator.Get_rank(), communicator.Get_size()
            hosts, devices = communicator.allgather(platform.node()), jax.local_devices()
            self.device = devices[hosts[: self.rank].count(platform.node()) % len(devices)]

    def gather(self, ids: np.ndarray, types: np.ndarray, positions: np.ndarray) -> Gathered:
        """Gather the atoms of all ranks from those of each: ids (n_own,), types (n_own,), positions (n_own, 3) Å."""
        counts = self.communicator.allgather(len(ids)) if self.communicator is not None else [len(ids)]
        everywhere, all_types, all_positions = (
            self._concatenated(np.ascontiguousarray(x, kind), counts)
            for x, kind in ((ids, np.int64), (types, np.int64), (positions, np.float64))
        )
        order = np.argsort(everywhere)
        local_indices = np.searchsorted(everywhere[order], ids)
        return Gathered(
            all_types[order], all_positions[order], np.repeat(np.arange(self.size), counts)[order], local_indices
        )

    def _concatenated(self, x, counts):
        if self.communicator is None:
            return x
        whole = np.empty((sum(counts), *x.shape[1:]), x.dtype)
        self.communicator.Allgatherv(x, [whole, np.array(counts) * int(np.prod(x.shape[1:]))])
        return whole

    def sum(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Sum each array over the ranks, in double precision."""
        parts = [np.array(x, np.float64) for x in arrays]
        if self.communicator is None:
            return parts
        sums = [np.empty_like(x) for x in parts]
        for part, total in zip(parts, sums, strict=True):
            self.communicator.Allreduce(part, total)
        return sums

    def run_or_raise_on_all(self, compute: Callable):
        """The result of `compute()` on this rank.

        If it raises on any rank, all ranks raise RuntimeError with the message of the first that failed; a single
        process raises the error itself.
        """
        result = problem = None
        try:
            with jax.default_device(self.device):
                result = compute()
        except BaseException as error:  # Ctrl-C too: the other ranks would wait for this one
            if self.communicator is None:
                raise
            problem = f"rank {self.rank}: {str(error) or type(error).__name__}"
        if self.communicator is not None:
            problem = next(filter(None, self.communicator.allgather(problem)), None)
        if problem:
            raise RuntimeError(problem)
        return result

    def all(self, condition: bool) -> bool:
        """Whether a condition holds on every rank."""
        return all(self.communicator.allgather(condition)) if self.communicator is not None else condition
