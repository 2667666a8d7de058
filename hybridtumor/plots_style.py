"""How each arm is drawn: one colour and one marker throughout a report, of which no two arms have the same pair.

Up to eight arms take Okabe and Ito's colours, which colour-blind readers can tell apart; the arm without treatment is
grey. A grid of more arms is coloured by its prescriptions, from dark to light, and marked by its schedules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from hybridtumor.plots_frame import label
from hybridtumor.therapy import TherapyPlan

GREY = "#4d4d4d"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*", "<", ">")
GLYPHS = ("●", "▲", "■", "◆", "▼", "✚", "✖", "★", "◀", "▶")
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1, 1, 1, 1, 1)),
)  # fmt: skip

MOST_TINTS = 8
"""Prescriptions that can be told apart by tints of one scale."""


@dataclass(frozen=True)
class ArmStyle:
    """Colour of an arm, and which of the markers and dashes is its own."""

    colour: str
    kind: int = 0

    @property
    def marker(self) -> str:
        """The marker as matplotlib calls it."""
        return MARKERS[self.kind % len(MARKERS)]

    @property
    def glyph(self) -> str:
        """The marker as a letter."""
        return GLYPHS[self.kind % len(GLYPHS)]

    @property
    def dashes(self) -> str | tuple[int, tuple[float, ...]]:
        """The style of its line."""
        return DASHES[self.kind % len(DASHES)]


def arm_styles(plans: Mapping[str, TherapyPlan]) -> dict[str, ArmStyle]:
    """Return how to draw each arm, given the plans by name."""
    treated = [name for name, plan in plans.items() if not plan.gives_nothing]
    free = [name for name in plans if name not in treated]
    others = treated + free[1:]
    styles = {name: ArmStyle(GREY) for name in free[:1]}
    found = _grid_styles({name: plans[name] for name in others}) if len(others) > len(COLOURS) else None
    if found is None:
        found = dict(zip(others, _pairs(len(others)), strict=True))
    return {name: (styles | found)[name] for name in plans}


def schedule(plan: TherapyPlan) -> str:
    """Return in a few words how a plan is given, without its dose: fractions of each course, and the drugs."""
    active = plan.active
    parts = [f"{'+'.join(str(course.fractions) for course in active.courses)} fractions"] if active.courses else []
    parts += dict.fromkeys(drug.drug for drug in active.drugs)
    parts += ["surgery"] if active.resections else []
    return ", ".join(parts) or "no treatment"


def prescribed(plan: TherapyPlan) -> float:
    """Return the prescribed dose of all courses, Gy."""
    return float(sum(course.prescribed_dose for course in plan.active.courses))


def key(names: Sequence[str], styles: Mapping[str, ArmStyle], *, dashed: bool = False, lw: float = 2.0) -> list[Line2D]:
    """Return what a legend shows for arms: a piece of line with the marker; `dashed` where lines have their dashes."""
    return [
        Line2D(
            [], [], color=styles[name].colour, lw=lw, ls=styles[name].dashes if dashed else "-",
            marker=styles[name].marker, ms=5, label=label(name),
        )
        for name in names
    ]  # fmt: skip


def _pairs(count: int) -> list[ArmStyle]:
    """Return styles one after another: all colours with the first marker, then all with the second."""
    return [ArmStyle(COLOURS[i % len(COLOURS)], i // len(COLOURS)) for i in range(count)]


def _grid_styles(plans: Mapping[str, TherapyPlan]) -> dict[str, ArmStyle] | None:
    """Colour a grid of arms by prescription and mark it by schedule; None where that would leave two arms alike."""
    cells = {name: (prescribed(plan), schedule(plan)) for name, plan in plans.items()}
    doses, kinds = (list(dict.fromkeys(cell[i] for cell in cells.values())) for i in (0, 1))
    if len(set(cells.values())) < len(cells) or len(kinds) > len(DASHES) or len(doses) > MOST_TINTS:
        return None
    doses.sort()
    spread = colormaps["plasma"]
    tint = {dose: to_hex(spread(0.8 * i / max(len(doses) - 1, 1))) for i, dose in enumerate(doses)}
    table = {(dose, kind): ArmStyle(tint[dose], kinds.index(kind)) for dose, kind in product(doses, kinds)}
    return {name: table[cell] for name, cell in cells.items()}
