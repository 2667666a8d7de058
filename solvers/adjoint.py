r"""The discrete adjoint of growth under therapy: one sweep back in time gives every slope of a misfit.

The sweep goes back through the very steps of `hybridtumor.solvers.growth.grow`, frozen: their days come from a forward
run and do not depend on the parameters. With g = ∂J/∂u and h = ∂J/∂d after an operation, before it

    reaction and kill   h ← h c,  g ← g ∂v/∂u + h ℓ ∂κ/∂u     J_L += g ∂v/∂L + h ℓ ∂κ/∂L,  J_ℓ += h κ,  J_p likewise
    diffusion           g/m ← e^{−Δt A} (g/m)                 A is self-adjoint in ⟨u, v⟩ = Σ m u v
    event               g ← g e^{−L} + h (1 − e^{−L})         J_L += −(g − h) u e^{−L}
    resection           g, h ← g e^{−L}, h e^{−L}
    report day          g, h ← g + ∂J/∂u(day), h + ∂J/∂d(day)

v is the flow, κ its mean density, c what is not cleared over the step, and d gains κ ℓ in it, ℓ the kill that is not
cleared at its end (`hybridtumor.models.growth_slopes`, `hybridtumor.models.damage`).

The slope of the exponential along K̃' is −∫₀^Δt ⟨e^{−(Δt−s)A} (g/m), K̃' e^{−sA} u⟩ ds. For K̃' = K̃ it is −Δt ⟨g, A u⟩,
since all commute; for the share of grey matter it is a Gauss–Legendre sum (`hybridtumor.solvers.exponential_slope`).

Slopes are those in the logarithm of a parameter. All fields of a `KillSchedule` are proportional to α, so that
∂J/∂ln α = Σ ⟨J_L, L⟩ over radiation.

Memory: at most `checkpoints` states are kept at a time, two arrays each. When there are fewer than operations, states
in between are computed again from those kept, in several levels if need be (after Griewank, Optim. Methods Softw.
1992; here with half of the free checkpoints evenly spread at each level).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError
from hybridtumor.models.damage import kill_moments
from hybridtumor.models.growth import mean_density, reaction_flow, surviving
from hybridtumor.models.growth_slopes import flow_slopes, mean_slopes
from hybridtumor.solvers.cells import Cells, cut_out, react, struck
from hybridtumor.solvers.diffusion import Diffusion
from hybridtumor.solvers.exponential_slope import through
from hybridtumor.solvers.frozen_run import Cut, Event, FrozenRun, Half, Operation, Report, middle_of, operations_of
from hybridtumor.solvers.petsc import MPI

Array = NDArray[np.float64]

Functional = Callable[[Mapping[float, Cells]], tuple[float, Mapping[float, Cells]]]
"""Cells at the report days → J and ∂J/∂(u, d) at them; J is the same on all ranks, the rest is of owned nodes."""

CHECKPOINTS = 400
"""States kept at a time."""


@dataclass(eq=False)
class Slopes:
    """Slopes of J.

    Parameters
    ----------
    initial
        ∂J/∂u on day 0 at the nodes this rank owns.
    diffusion
        ∂J/∂ln of both diffusivities together.
    grey
        ∂J/∂ln D_g alone; 0 unless asked for.
    proliferation
        ∂J/∂ln ρ.
    alpha
        ∂J/∂ln α with α/β fixed.
    drug
        ∂J/∂ln s, s the kill rate of all drugs.
    fields
        ∂J/∂ of every field of the `KillSchedule` at the nodes this rank owns; empty unless asked for.
    """

    initial: Array
    diffusion: float = 0.0
    grey: float = 0.0
    proliferation: float = 0.0
    alpha: float = 0.0
    drug: float = 0.0
    fields: tuple[Array, ...] = ()

    def summed(self, comm: MPI.Intracomm) -> "Slopes":
        """Return the slopes with the numbers of all ranks added up."""
        parts = np.array([self.diffusion, self.grey, self.proliferation, self.alpha, self.drug])
        diffusion, grey, proliferation, alpha, drug = map(float, comm.allreduce(parts))
        return Slopes(self.initial, diffusion, grey, proliferation, alpha, drug, self.fields)


@dataclass(eq=False)
class Adjoint:
    """Value and slopes of functionals of one run.

    Parameters
    ----------
    run
        The run.
    checkpoints
        States kept at a time, at least 1.
    grey
        Whether to find the slope in the grey matter's diffusivity: the steps' powers are computed once more.
    fields
        Whether to find the slopes in the log-kill fields, for the dose.

    Attributes
    ----------
    most_kept
        States that were kept at a time, for whoever wants to check the bound.
    """

    run: FrozenRun
    checkpoints: int = CHECKPOINTS
    grey: bool = False
    fields: bool = False
    most_kept: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.checkpoints < 1:
            raise InputError(f"adjoint: expected at least one checkpoint, got {self.checkpoints}.")
        self._operations = operations_of(self.run)
        self._kept = 0

    def cells(self, initial: Array) -> dict[float, Cells]:
        """Return the cells at every report day, from the density on day 0; both at the nodes this rank owns."""
        reported: dict[float, Cells] = {}
        self._forward(self.run.start(initial), 0, len(self._operations), reported)
        return reported

    def value_and_slopes(self, initial: Array, functional: Functional) -> tuple[float, Slopes, dict[float, Cells]]:
        """Return J, its slopes, and the cells at the report days, from the density on day 0."""
        start, count, reported = self.run.start(initial), len(self._operations), dict[float, Cells]()
        direct = count <= self.checkpoints
        records = self._recorded(start, 0, count, reported) if direct else []
        if not direct:
            self._forward(start, 0, count, reported)
        value, at_reports = functional(reported)
        none = tuple(np.zeros_like(initial) for _ in self.run.kill.fields) if self.fields else ()
        back = _Back(self, at_reports, Slopes(np.zeros_like(initial), fields=none))
        adjoint = Cells(np.zeros_like(initial), None if start.damaged is None else np.zeros_like(initial))
        if direct:
            adjoint = back.through(records, 0, adjoint)
            self._kept -= len(records)
        else:
            adjoint = self._sweep(start, 0, count, adjoint, back, self.checkpoints)
        back.slopes.initial = adjoint.living
        return value, back.slopes.summed(self.run.media[0][1].diffusion.domain.comm), reported

    def _forward(self, cells: Cells, start: int, stop: int, reported: dict[float, Cells] | None = None) -> Cells:
        for operation in self._operations[start:stop]:
            if isinstance(operation, Report) and reported is not None:
                reported[operation.day] = cells
            cells = self._after(operation, cells)[0]
        return cells

    def _recorded(
        self, cells: Cells, start: int, stop: int, reported: dict[float, Cells] | None = None
    ) -> list[tuple[Array, Array]]:
        """Return the density before every operation, and within half a step that after its diffusion."""
        records = []
        for operation in self._operations[start:stop]:
            if isinstance(operation, Report) and reported is not None:
                reported[operation.day] = cells
            after, between = self._after(operation, cells)
            records.append((cells.living, between))
            cells = after
        self._keep(len(records))
        return records

    def _keep(self, count: int) -> None:
        self._kept += count
        self.most_kept = max(self.most_kept, self._kept)

    def _after(self, operation: Operation, cells: Cells) -> tuple[Cells, Array]:
        """Return the cells after an operation, and the density between diffusion and reaction."""
        kill = self.run.kill
        if isinstance(operation, Report):
            return cells, cells.living
        if isinstance(operation, Event):
            return struck(cells, kill.event_log_kill(operation.day)), cells.living
        if isinstance(operation, Cut):
            return cut_out(cells, np.asarray(kill.removal_log_kill(operation.day))), cells.living
        middle, half = middle_of(operation)
        how = (self.run.law, self.run.rate, kill, self.run.clearance)
        cells = react(*how, cells, operation.start, middle, half)
        between = self.diffusion(operation).step(cells.living, operation.stop - operation.start)
        return react(*how, Cells(between, cells.damaged), middle, operation.stop, half), between

    def diffusion(self, half: Half) -> Diffusion:
        """Return the diffusion operator of half a step."""
        return self.run.media[half.medium][1].diffusion

    def operation(self, number: int) -> Operation:
        """Return what happens at a place in the run."""
        return self._operations[number]

    def _sweep(self, cells: Cells, start: int, stop: int, adjoint: Cells, back: "_Back", free: int) -> Cells:
        """Return the adjoint before operation `start` from that before `stop`, with `free` states to keep."""
        if stop - start <= free:
            records = self._recorded(cells, start, stop)
            adjoint = back.through(records, start, adjoint)
            self._kept -= len(records)
            return adjoint
        spread = free // 2
        if spread == 0:
            for number in reversed(range(start, stop)):
                adjoint = self._sweep(self._forward(cells, start, number), number, number + 1, adjoint, back, 1)
            return adjoint
        length = -(-(stop - start) // (spread + 1))
        begins = list(range(start, stop, length))
        states = [cells]
        for before, begin in pairwise(begins):
            states.append(self._forward(states[-1], before, begin))
        self._keep(len(states) - 1)
        for begin, end in reversed(list(zip(begins, [*begins[1:], stop], strict=True))):
            adjoint = self._sweep(states.pop(), begin, end, adjoint, back, free - spread)
            self._kept -= bool(states)
        return adjoint


@dataclass(eq=False)
class _Back:
    """The way back through operations: what the adjoint becomes, and what it tells on the way.

    Parameters
    ----------
    adjoint
        Whose run.
    at_reports
        ∂J/∂(u, d) at the report days.
    slopes
        Where slopes are added up.
    """

    adjoint: Adjoint
    at_reports: Mapping[float, Cells]
    slopes: Slopes

    def through(self, records: list[tuple[Array, Array]], start: int, adjoint: Cells) -> Cells:
        """Return the adjoint before operation `start` from that after the last one recorded."""
        for number in reversed(range(len(records))):
            operation, (before, between) = self.adjoint.operation(start + number), records[number]
            if isinstance(operation, Half):
                adjoint = self._half(operation, before, between, adjoint)
            elif isinstance(operation, Report):
                adjoint = _added(adjoint, self.at_reports.get(operation.day))
            elif isinstance(operation, Event):
                adjoint = self._event(operation, before, adjoint)
            else:
                adjoint = cut_out(adjoint, np.asarray(self.adjoint.run.kill.removal_log_kill(operation.day)))
        return adjoint

    def _event(self, event: Event, u: Array, adjoint: Cells) -> Cells:
        kill, g, h = self.adjoint.run.kill, adjoint.living, adjoint.damaged
        log_kill = kill.event_log_kill(event.day)
        by_kill = (0 if h is None else h) - g
        by_kill *= surviving(u, log_kill)
        self._note_radiation(by_kill, log_kill, kill.event_weights(event.day))
        living = surviving(g, log_kill)
        return Cells(living if h is None else living - h * np.expm1(-log_kill), h)

    def _half(self, half: Half, before: Array, between: Array, adjoint: Cells) -> Cells:
        """Return the adjoint before half a step."""
        run, (middle, duration) = self.adjoint.run, middle_of(half)
        operator, span = run.media[half.medium][1], half.stop - half.start
        diffusion = operator.diffusion
        adjoint = self._reaction(between, (middle, half.stop), duration, adjoint)
        self.slopes.diffusion -= span * float(adjoint.living @ diffusion.excess(between))
        scaled = adjoint.living / diffusion.volume
        if self.adjoint.grey:
            log_kill = run.kill.drug_log_kill(half.start, middle) + run.kill.beam_log_kill(half.start, middle)
            u = reaction_flow(run.law, before, run.rate, duration, log_kill)
            scaled, slope = through(operator, u, scaled, span)
            self.slopes.grey += slope
        else:
            scaled = diffusion.step(scaled, span)
        adjoint = Cells(diffusion.volume * scaled, adjoint.damaged)
        return self._reaction(before, (half.start, middle), duration, adjoint)

    def _reaction(self, u: Array, when: tuple[float, float], duration: float, adjoint: Cells) -> Cells:
        run, g, h = self.adjoint.run, adjoint.living, adjoint.damaged
        drug, beam = run.kill.drug_log_kill(*when), run.kill.beam_weights(*when)
        killing = bool(drug or beam)
        how = (run.law, u, run.rate, duration, drug + run.kill.beam_log_kill(*when))
        flow = flow_slopes(*how)
        before, by_growth = g * flow.density, g * flow.growth
        by_kill: Array = g * flow.log_kill if killing else g
        by_left: Array | None = None
        if h is not None and killing:
            moments, mean = kill_moments(run.kill, *when, run.clearance), mean_slopes(*how)
            left = h * moments.left
            before, by_growth = before + left * mean.density, by_growth + left * mean.growth
            by_kill = by_kill + left * mean.log_kill
            by_left = h * mean_density(*how)
            self.slopes.drug += moments.drug_left * float(by_left.sum())
            by_beam = by_kill + moments.beam_share * by_left
        else:
            by_beam = by_kill
        self.slopes.proliferation += run.rate * duration * float(by_growth.sum())
        if drug:
            self.slopes.drug += drug * float(by_kill.sum())
        if beam:
            self._note_radiation(by_beam, np.asarray(run.kill.beam_log_kill(*when)), beam)
        return Cells(before, None if h is None else h * np.exp(-run.clearance * duration))

    def _note_radiation(self, by_kill: Array, log_kill: Array, weights: Mapping[int, float]) -> None:
        self.slopes.alpha += float(by_kill @ log_kill)
        if self.adjoint.fields:
            for number, weight in weights.items():
                self.slopes.fields[number][:] += weight * by_kill


def _added(adjoint: Cells, more: Cells | None) -> Cells:
    """Return the adjoint with the slopes of a report day."""
    if more is None:
        return adjoint
    damaged = adjoint.damaged
    if damaged is not None and more.damaged is not None:
        damaged = damaged + more.damaged
    return Cells(adjoint.living + more.living, damaged)
