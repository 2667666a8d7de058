r"""Limiting of fluxes along the edges of a mesh, so that no node leaves its bounds and nothing is lost.

A node with the low-order value u_L,i and volume m_i may rise by Q_i⁺ = max_j max(u_j, u_L,j) − u_L,i and fall by Q_i⁻,
the maximum over the node and its neighbours. Of the fluxes f_ij = −f_ji (mm³) that it gains, P_i⁺ = Σ_j max(f_ij, 0),
and loses, P_i⁻, at most the shares

    R_i⁺ = min(1, m_i Q_i⁺ / P_i⁺),      R_i⁻ = min(1, m_i Q_i⁻ / P_i⁻)

may pass, and every flux keeps the smaller share of its two ends: α_ij = min(R_i⁺, R_j⁻) for f_ij > 0 (Zalesak,
J. Comput. Phys. 1979; on finite elements Kuzmin, Löhner & Turek (eds.), Flux-Corrected Transport, Springer).

Nodes are taken a block at a time, so that what is worked on stays in the cache.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridtumor.solvers.petsc import PETSc

Array = NDArray[np.float64]

_SAFETY = 1 - 1e-13
"""Share of the way to a bound that fluxes may go, so that rounding does not carry a node across."""

_TINY = 1e-300
"""A node this close to its bound takes no flux towards it: below, rounding is absolute."""

_BLOCK = 768
"""Nodes that are worked on together."""


@dataclass(frozen=True, eq=False)
class Block:
    """The edges at some nodes of this rank, row by row.

    Parameters
    ----------
    nodes
        Which nodes.
    start
        Where the entries of each begin.
    row, column
        Local numbers of the two nodes; those this rank owns come first, then its ghosts. The diagonal is one of them.
    entry, monotone
        k_ij and k̃_ij = min(k_ij, 0), 0 on the diagonal.
    """

    nodes: slice
    start: NDArray[np.intp]
    row: NDArray[np.intp]
    column: NDArray[np.intp]
    entry: Array
    monotone: Array

    def sums(self, entries: Array) -> Array:
        """Add the entries of every row up."""
        return np.asarray(np.add.reduceat(entries, self.start))

    def antidiffusion(self, low: Array, high: Array) -> Array:
        """Return f_ij = k̃_ij (U_L,j − U_L,i) − k_ij (U_H,j − U_H,i), mm³, of the integrals U_L and U_H over a step."""
        flux = self.monotone * (low[self.column] - low[self.row])
        flux -= self.entry * (high[self.column] - high[self.row])
        return flux

    def shares(self, flux: Array, rise: Array, fall: Array) -> tuple[Array, Array]:
        """Return R⁺ and R⁻ of the nodes, none of which may gain more than `rise` or lose more than `fall`, mm³."""
        gain, loss = self.sums(np.maximum(flux, 0)), -self.sums(np.minimum(flux, 0))
        gaining = rise / np.maximum(gain, np.maximum(rise, _TINY))
        return gaining, fall / np.maximum(loss, np.maximum(fall, _TINY))

    def limit(self, flux: Array, gaining: Array, losing: Array) -> Array:
        """Return α_ij f_ij from the shares R⁺ and R⁻ of all nodes."""
        into = np.minimum(gaining[self.row], losing[self.column])
        out_of = np.minimum(losing[self.row], gaining[self.column])
        return np.asarray(np.where(flux > 0, into, out_of) * flux)


@dataclass(eq=False)
class Ghosts:
    """Values at the nodes of other ranks that share an edge with one of ours; every rank calls together."""

    source: PETSc.Vec
    target: PETSc.Vec
    scatter: PETSc.Scatter

    def values(self, owned: Array) -> Array:
        """Return the values there."""
        self.source.array[:] = owned
        self.scatter.scatter(self.source, self.target, addv=PETSc.InsertMode.INSERT, mode=PETSc.ScatterMode.FORWARD)
        return np.array(self.target.array_r)


@dataclass(frozen=True, eq=False)
class Edges:
    """All edges at the nodes this rank owns.

    Parameters
    ----------
    blocks
        The edges, some nodes at a time.
    ghosts
        Brings values from the ranks that own the ghosts; None with one rank.
    """

    blocks: tuple[Block, ...]
    ghosts: Ghosts | None

    def spread(self, owned: Array) -> Array:
        """Return nodal values with those of the ghosts behind them."""
        return owned if self.ghosts is None else np.concatenate([owned, self.ghosts.values(owned)])

    def correction(self, volume: Array, u: Array, low: Array, integrals: tuple[Array, Array]) -> tuple[Array, Array]:
        """Return what the limited fluxes bring every node, and how much flux there was and is left.

        Parameters
        ----------
        volume
            m_i of the nodes this rank owns, mm³.
        u, low
            Density before the step, and after it to low order.
        integrals
            U_L and U_H.

        Returns
        -------
        tuple
            Σ_j α_ij f_ij, (n,), and Σ |f_ij| and Σ α_ij |f_ij| over the edges of this rank, (2,); mm³.
        """
        below, above = (self.spread(values) for values in integrals)
        highest, lowest = self.spread(np.maximum(u, low)), self.spread(np.minimum(u, low))
        fluxes, gaining, losing = [], np.empty_like(u), np.empty_like(u)
        for block in self.blocks:
            flux, here = block.antidiffusion(below, above), low[block.nodes]
            over = np.maximum.reduceat(highest[block.column], block.start) - here
            under = here - np.minimum.reduceat(lowest[block.column], block.start)
            rise, fall = (volume[block.nodes] * np.maximum(_SAFETY * room - _TINY, 0) for room in (over, under))
            gaining[block.nodes], losing[block.nodes] = block.shares(flux, rise, fall)
            fluxes.append(flux)
        gaining, losing = self.spread(gaining), self.spread(losing)
        result, size = np.empty_like(u), np.zeros(2)
        for block, flux in zip(self.blocks, fluxes, strict=True):
            kept = block.limit(flux, gaining, losing)
            result[block.nodes] = block.sums(kept)
            size += np.abs(flux).sum(), np.abs(kept).sum()
        return result, size


def edges_of(matrix: PETSc.Mat, start: NDArray[np.int32], columns: NDArray[np.int32], entry: Array) -> Edges:
    """Return the edges of a matrix with the pattern of its own rows (CSR, columns of all ranks); collective.

    Parameters
    ----------
    matrix
        Tells which rows are whose.
    start, columns
        The pattern.
    entry
        k_ij, 0 on the diagonal.
    """
    begin, end = matrix.getOwnershipRange()
    own = (columns >= begin) & (columns < end)
    others, place = np.unique(columns[~own], return_inverse=True)
    local = columns.astype(np.intp) - begin
    local[~own] = end - begin + place
    ghosts = None
    if matrix.comm.size > 1:
        source, target = matrix.createVecRight(), PETSc.Vec().createSeq(others.size, comm=PETSc.COMM_SELF)
        wanted = PETSc.IS().createGeneral(others.astype(columns.dtype), comm=PETSc.COMM_SELF)  # type: ignore[arg-type]
        ghosts = Ghosts(source, target, PETSc.Scatter().create(source, wanted, target, None))  # type: ignore[arg-type]
    row = np.repeat(np.arange(end - begin), np.diff(start))
    blocks = []
    for first in range(0, end - begin, _BLOCK):
        nodes = slice(first, min(first + _BLOCK, end - begin))
        part = slice(start[nodes.start], start[nodes.stop])
        offsets = (start[nodes] - part.start).astype(np.intp)
        blocks.append(Block(nodes, offsets, row[part], local[part], entry[part], np.minimum(entry[part], 0.0)))
    return Edges(tuple(blocks), ghosts)
