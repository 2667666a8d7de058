r"""The discrete adjoint of growth under therapy: one sweep back in time gives every slope of a misfit.

The sweep goes back through the very steps of `hybridtumor.solvers.growth.grow`, frozen: their days come from a forward
run and do not depend on the parameters. With g = ∂J/∂u after an operation, before it

    reaction and kill   g ← g ∂v/∂u                           J_p += g·∂v/∂p,  J_L += g ∂v/∂L
    diffusion           g/m ← e^{−Δt A} (g/m)                 A is self-adjoint in ⟨u, v⟩ = Σ m u v
    event, resection    g ← g e^{−L}                          J_L += −g u e^{−L}
    report day          g ← g + ∂J/∂u(day)

The slope of the exponential along K̃' is −∫₀^Δt ⟨e^{−(Δt−s)A} (g/m), K̃' e^{−sA} u⟩ ds. For K̃' = K̃ it is −Δt ⟨g, A u⟩,
since all commute; for the share of grey matter it is a Gauss–Legendre sum with as many nodes as bring its error below
`QUADRATURE`, from the same powers of N as the step itself.

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
from scipy.special import ive

from hybridtumor.errors import InputError
from hybridtumor.models.growth import reaction_flow, surviving
from hybridtumor.models.growth_slopes import FlowSlopes, flow_slopes
from hybridtumor.solvers.diffusion import Diffusion, poisson_weights
from hybridtumor.solvers.frozen_run import Cut, Event, FrozenRun, Half, Operation, Report, middle_of, operations_of
from hybridtumor.solvers.petsc import MPI
from hybridtumor.solvers.tissue_diffusion import TissueOperator

Array = NDArray[np.float64]

Functional = Callable[[Mapping[float, Array]], tuple[float, Mapping[float, Array]]]
"""Densities at the report days → J and ∂J/∂u at them; J is the same on all ranks, the rest is of owned nodes."""

CHECKPOINTS = 400
"""States kept at a time."""

QUADRATURE = 1e-9
"""Relative error of the slope in the grey matter's diffusivity, for the stiffest mode there can be."""


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
    """

    run: FrozenRun
    checkpoints: int = CHECKPOINTS
    grey: bool = False
    fields: bool = False
    most_kept: int = field(default=0, init=False)
    """States that were kept at a time, for whoever wants to check the bound."""

    def __post_init__(self) -> None:
        if self.checkpoints < 1:
            raise InputError(f"adjoint: expected at least one checkpoint, got {self.checkpoints}.")
        self._operations = operations_of(self.run)
        self._kept = 0

    def densities(self, initial: Array) -> dict[float, Array]:
        """Return the density at every report day, from that on day 0; both at the nodes this rank owns."""
        reported: dict[float, Array] = {}
        self._forward(initial, 0, len(self._operations), reported)
        return reported

    def value_and_slopes(self, initial: Array, functional: Functional) -> tuple[float, Slopes, dict[float, Array]]:
        """Return J, its slopes, and the densities at the report days, from the density on day 0."""
        count, reported = len(self._operations), dict[float, Array]()
        direct = count <= self.checkpoints
        records = self._recorded(initial, 0, count, reported) if direct else []
        if not direct:
            self._forward(initial, 0, count, reported)
        value, at_reports = functional(reported)
        slopes = Slopes(np.zeros_like(initial), fields=self._no_fields(initial))
        adjoint = np.zeros_like(initial)
        if direct:
            adjoint = self._back(records, 0, adjoint, at_reports, slopes)
        else:
            adjoint = self._sweep(initial, 0, count, adjoint, at_reports, slopes, self.checkpoints)
        slopes.initial = adjoint
        self._sum_over_ranks(slopes)
        return value, slopes, reported

    def _no_fields(self, like: Array) -> tuple[Array, ...]:
        return tuple(np.zeros_like(like) for _ in self.run.kill.fields) if self.fields else ()

    def _sum_over_ranks(self, slopes: Slopes) -> None:
        parts = np.array([slopes.diffusion, slopes.grey, slopes.proliferation, slopes.alpha, slopes.drug])
        total = self._comm.allreduce(parts)
        slopes.diffusion, slopes.grey, slopes.proliferation, slopes.alpha, slopes.drug = map(float, total)

    @property
    def _comm(self) -> MPI.Intracomm:
        return self.run.media[0][1].diffusion.domain.comm

    def _forward(self, u: Array, start: int, stop: int, reported: dict[float, Array] | None = None) -> Array:
        for operation in self._operations[start:stop]:
            if isinstance(operation, Report) and reported is not None:
                reported[operation.day] = u
            u = self._after(operation, u)[0]
        return u

    def _recorded(
        self, u: Array, start: int, stop: int, reported: dict[float, Array] | None = None
    ) -> list[tuple[Array, Array]]:
        """Return the state before every operation, and within a half step that after its diffusion."""
        records = []
        for operation in self._operations[start:stop]:
            if isinstance(operation, Report) and reported is not None:
                reported[operation.day] = u
            after, between = self._after(operation, u)
            records.append((u, between))
            u = after
        self._keep(len(records))
        return records

    def _keep(self, count: int) -> None:
        self._kept += count
        self.most_kept = max(self.most_kept, self._kept)

    def _after(self, operation: Operation, u: Array) -> tuple[Array, Array]:
        """Return the state after an operation, and that between diffusion and reaction."""
        if isinstance(operation, Report):
            return u, u
        if not isinstance(operation, Half):
            after = surviving(u, self._log_kill(operation))
            return after, after
        middle, half = middle_of(operation)
        u = reaction_flow(self.run.law, u, self.run.rate, half, self._killed(operation.start, middle))
        between = self._diffusion(operation).step(u, operation.stop - operation.start)
        after = reaction_flow(self.run.law, between, self.run.rate, half, self._killed(middle, operation.stop))
        return after, between

    def _diffusion(self, half: Half) -> Diffusion:
        return self.run.media[half.medium][1].diffusion

    def _killed(self, start: float, stop: float) -> float | Array:
        return self.run.kill.drug_log_kill(start, stop) + self.run.kill.beam_log_kill(start, stop)

    def _log_kill(self, operation: Event | Cut) -> Array:
        if isinstance(operation, Event):
            return self.run.kill.event_log_kill(operation.day)
        return np.asarray(self.run.kill.removal_log_kill(operation.day))

    def _sweep(
        self,
        u: Array,
        start: int,
        stop: int,
        adjoint: Array,
        at_reports: Mapping[float, Array],
        slopes: Slopes,
        free: int,
    ) -> Array:
        """Return the adjoint before operation `start` from that before `stop`, with `free` states to keep."""
        if stop - start <= free:
            records = self._recorded(u, start, stop)
            adjoint = self._back(records, start, adjoint, at_reports, slopes)
            self._kept -= len(records)
            return adjoint
        spread = free // 2
        if spread == 0:
            for number in reversed(range(start, stop)):
                state = self._forward(u, start, number)
                adjoint = self._sweep(state, number, number + 1, adjoint, at_reports, slopes, 1)
            return adjoint
        length = -(-(stop - start) // (spread + 1))
        begins = list(range(start, stop, length))
        states = [u]
        for before, begin in pairwise(begins):
            states.append(self._forward(states[-1], before, begin))
        self._keep(len(states) - 1)
        for begin, end in reversed(list(zip(begins, [*begins[1:], stop], strict=True))):
            adjoint = self._sweep(states.pop(), begin, end, adjoint, at_reports, slopes, free - spread)
            self._kept -= bool(states)
        return adjoint

    def _back(
        self,
        records: list[tuple[Array, Array]],
        start: int,
        adjoint: Array,
        at_reports: Mapping[float, Array],
        slopes: Slopes,
    ) -> Array:
        """Return the adjoint before operation `start` from that after the last one recorded."""
        for number in reversed(range(len(records))):
            operation, (before, between) = self._operations[start + number], records[number]
            if isinstance(operation, Report):
                if operation.day in at_reports:
                    adjoint = adjoint + at_reports[operation.day]
            elif isinstance(operation, Half):
                adjoint = self._back_half(operation, before, between, adjoint, slopes)
            else:
                log_kill = self._log_kill(operation)
                if isinstance(operation, Event):
                    weights = self.run.kill.event_weights(operation.day)
                    self._note_radiation(-adjoint * between, log_kill, weights, slopes)
                adjoint = adjoint * np.exp(-log_kill)
        return adjoint

    def _back_half(self, half: Half, before: Array, between: Array, adjoint: Array, slopes: Slopes) -> Array:
        """Return the adjoint before half a step, and add what it tells to the slopes."""
        run, (middle, duration) = self.run, middle_of(half)
        operator = run.media[half.medium][1]
        log_kill = self._killed(middle, half.stop)
        flow = flow_slopes(run.law, between, run.rate, duration, log_kill)
        adjoint = self._back_reaction(flow, (middle, half.stop), adjoint, slopes)
        span, volume = half.stop - half.start, operator.diffusion.volume
        scaled, log_kill = adjoint / volume, self._killed(half.start, middle)
        slopes.diffusion -= span * float(adjoint @ operator.diffusion.excess(between))
        if self.grey:
            u = reaction_flow(run.law, before, run.rate, duration, log_kill)
            scaled, slope = _through(operator, u, scaled, span)
            slopes.grey += slope
        else:
            scaled = operator.diffusion.step(scaled, span)
        flow = flow_slopes(run.law, before, run.rate, duration, log_kill)
        return self._back_reaction(flow, (half.start, middle), volume * scaled, slopes)

    def _back_reaction(self, flow: FlowSlopes, when: tuple[float, float], adjoint: Array, slopes: Slopes) -> Array:
        kill = self.run.kill
        slopes.proliferation += self.run.rate * (when[1] - when[0]) * float(adjoint @ flow.growth)
        drug, beam = kill.drug_log_kill(*when), kill.beam_weights(*when)
        if drug or beam:
            by_kill = adjoint * flow.log_kill
            slopes.drug += drug * float(by_kill.sum())
            if beam:
                self._note_radiation(by_kill, np.asarray(kill.beam_log_kill(*when)), beam, slopes)
        return adjoint * flow.density

    def _note_radiation(self, by_kill: Array, log_kill: Array, weights: Mapping[int, float], slopes: Slopes) -> None:
        slopes.alpha += float(by_kill @ log_kill)
        if self.fields:
            for number, weight in weights.items():
                slopes.fields[number][:] += weight * by_kill


def _through(operator: TissueOperator, u: Array, scaled: Array, span: float) -> tuple[Array, float]:
    """Return e^{−Δt A} (g/m), and −∫ ⟨e^{−(Δt−s)A} (g/m), K̃_g e^{−sA} u⟩ ds."""
    nodes, weights = gauss_nodes(span * operator.diffusion.rate)
    forward = _at_times(operator.diffusion, u, span, span * nodes)
    backward = _at_times(operator.diffusion, scaled, span, span * np.append(1 - nodes, 1.0))
    slope = -span * sum(
        weight * float(b @ operator.grey_slope(f)) for weight, f, b in zip(weights, forward, backward, strict=False)
    )
    return backward[-1], slope


def gauss_nodes(stiffness: float) -> tuple[Array, Array]:
    """Return nodes and weights on [0, 1] that integrate e^{±2 λ x}, λ = `stiffness`, to `QUADRATURE` of its largest.

    The error of q nodes is that of the Chebyshev coefficient of order 2q, e^{−λ} I_{2q}(λ).
    """
    count = 2
    while ive(2 * count, stiffness) > QUADRATURE:
        count += 1
    x, weights = np.polynomial.legendre.leggauss(count)
    return (x + 1) / 2, weights / 2


_BLOCK = 16
"""Powers that are added up at a time."""


def _at_times(diffusion: Diffusion, u: Array, span: float, times: Array) -> Array:
    """Return e^{−sA} u for every s of `times`, none above `span`: (len(times), n)."""
    tables = [poisson_weights(s * diffusion.rate) for s in times]
    highest = sum(np.shape(poisson_weights(span * diffusion.rate)[1])) + poisson_weights(span * diffusion.rate)[0]
    table = np.zeros((len(times), max(highest, max(first + len(w) for first, w in tables))))
    for row, (first, values) in zip(table, tables, strict=True):
        row[first : first + len(values)] = values
    result, block = np.zeros((len(times), u.size)), np.empty((_BLOCK, u.size))
    last = 0
    for k, power in diffusion.powers(u, span):
        block[k % _BLOCK], last = power, k
        if k % _BLOCK == _BLOCK - 1:
            result += table[:, k - _BLOCK + 1 : k + 1] @ block
    rest = last % _BLOCK + 1
    if rest < _BLOCK:
        result += table[:, last - rest + 1 : last + 1] @ block[:rest]
    return result
