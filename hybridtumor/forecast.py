"""Forecast: what the growth layer hands to the image layer and to the user, as numpy arrays on the patient's grid."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.grid import Grid


@dataclass(frozen=True, eq=False)
class MeshFields:
    """The mesh of the growth layer and the density on it.

    Parameters
    ----------
    points
        (n, 3) vertices, mm RAS+.
    cells
        (m, 4) vertex numbers of the tetrahedra.
    density
        Day to (n,) tumour cell density at the vertices, fraction of carrying capacity.
    cell_fields
        Name to (m,) value per cell, such as ``white`` and ``grey``, the tissue fractions.
    """

    points: NDArray[np.float64]
    cells: NDArray[np.int64]
    density: dict[float, NDArray[np.float64]]
    cell_fields: dict[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Forecast:
    """Fields of one arm at the report days, on the patient's grid, where the tissue is on that day.

    Parameters
    ----------
    grid
        The patient's grid.
    days
        Report days, ascending; day 0 is the baseline scan.
    density
        Tumour cell density, fraction of carrying capacity in [0, 1], one (nx, ny, nz) float32 array per day.
    log_kill
        Log-kill accumulated from day 0, one array per day, not negative.
    displacement
        Displacement v, mm RAS+, one (3, nx, ny, nz) array per day: the tissue that was at X on day 0 is at X + v(X).
        None without mechanics.
    burden_curve
        (k, 2): day and total burden ∫u dx in mm³ at every accepted step of the solver, all report days among them.
    mesh
        The mesh and the density on it, for pictures; None when the forecast was read back from images alone.
    figures
        What the solver reports of itself: cells, dofs, cell sizes, steps, seconds per stage, share of positive
        off-diagonals.
    damaged
        Damaged cells that await clearance, fraction of carrying capacity, one array per day; None: nothing is killed,
        or cleared at once. u + d passes 1 where living cells grow into damaged ones that are slow to clear.
    damaged_curve
        (k, 2): day and ∫d dx in mm³ at the points of `burden_curve`; None with `damaged`.
    """

    grid: Grid
    days: tuple[float, ...]
    density: tuple[NDArray[np.float32], ...]
    log_kill: tuple[NDArray[np.float32], ...]
    burden_curve: NDArray[np.float64]
    displacement: tuple[NDArray[np.float32], ...] | None = None
    mesh: MeshFields | None = None
    figures: dict[str, float] = field(default_factory=dict)
    damaged: tuple[NDArray[np.float32], ...] | None = None
    damaged_curve: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if list(self.days) != sorted(set(self.days)):
            raise InputError(f"forecast: expected ascending days, got {self.days}.")
        shapes = {
            "density": self.grid.shape,
            "log_kill": self.grid.shape,
            "damaged": self.grid.shape,
            "displacement": (3, *self.grid.shape),
        }
        for name, shape in shapes.items():
            fields = getattr(self, name)
            if fields is not None and (len(fields) != len(self.days) or any(f.shape != shape for f in fields)):
                raise InputError(f"forecast: expected one {name} of shape {shape} per day.")
        if self.damaged_curve is not None and self.damaged_curve.shape != self.burden_curve.shape:
            raise InputError("forecast: expected the damaged cells at the points of the burden curve.")

    def visible(self, day: float) -> NDArray[np.float32]:
        """Return u + d on a report day: what MRI sees, living and damaged cells alike.

        Raises
        ------
        InputError
            `day` is not a report day.
        """
        density, _ = self.at(day)
        return density if self.damaged is None else density + self.damaged[self.days.index(day)]

    @property
    def burden(self) -> tuple[float, ...]:
        """∫u dx at the report days as the solver counts it, mm³: tissue that is pushed aside keeps its cells."""
        return self._at_reports(self.burden_curve)

    @property
    def imaged_burden(self) -> tuple[float, ...]:
        """∫(u + d) dx at the report days, mm³."""
        return self._at_reports(self.imaged_curve)

    def _at_reports(self, curve: NDArray[np.float64]) -> tuple[float, ...]:
        """Return a curve's values at the report days: before a fraction of that day."""
        return tuple(float(curve[np.abs(curve[:, 0] - day).argmin(), 1]) for day in self.days)

    @property
    def imaged_curve(self) -> NDArray[np.float64]:
        """(k, 2): day and ∫(u + d) dx in mm³ at the points of `burden_curve`."""
        if self.damaged_curve is None:
            return self.burden_curve
        return np.column_stack([self.burden_curve[:, 0], self.burden_curve[:, 1] + self.damaged_curve[:, 1]])

    def at(self, day: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return density and accumulated log-kill at a report day.

        Raises
        ------
        InputError
            `day` is not a report day.
        """
        if day not in self.days:
            raise InputError(f"forecast: expected a day among {self.days}, got {day}.")
        i = self.days.index(day)
        return self.density[i], self.log_kill[i]
