r"""What each arm comes to on its last day, and which plans no other beats.

A plan p beats q when burden_p ≤ burden_q and brain_p ≤ brain_q, one of them strictly: less tumour, less dose to the
brain. What no plan beats is the Pareto set, the plans among which a choice is a trade-off. Brain is the mean EQD2 of
the normal brain, Gy (α/β 3 Gy).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hybridtumor.plots_style import schedule
from hybridtumor.therapy import UNTREATED, TherapyPlan

FEW, CHOSEN = 4, 3
"""Arms up to which a report shows all in full; how many it shows so of more, the others beside one another alone."""

SAME = 0.005
SAME_VOLUME = 10.0
"""Burdens are the same within this share of the smaller one, or within these mm³."""


@dataclass(frozen=True)
class Outcome:
    """One arm on its last day.

    Parameters
    ----------
    treated
        Whether anything is given.
    day
        The last day.
    first, burden
        Burden of living cells on day 0 and on the last day, mm³.
    brain
        Mean EQD2 of the normal brain, Gy; 0 without radiation, None when it is not known.
    ntcp
        Probability of a complication in the normal brain, or None.
    bed
        BED of the prescription for the tumour, Gy; 0 without radiation.
    schedule
        How the plan is given, without its dose.
    """

    name: str
    treated: bool
    day: float
    first: float
    burden: float
    brain: float | None
    ntcp: float | None
    bed: float
    schedule: str

    @classmethod
    def of(cls, name: str, figures: Mapping[str, Any], plan: TherapyPlan) -> "Outcome":
        """Read the outcome of an arm off its figures."""
        dose = figures.get("dose") or {}
        return cls(
            name=name,
            treated=not plan.gives_nothing,
            day=float(figures["days"][-1]),
            first=float(figures["burden_mm3"][0]),
            burden=float(figures["burden_mm3"][-1]),
            brain=of_brain(figures, "mean_EQD2_Gy") if plan.active.courses else 0.0,
            ntcp=of_brain(figures, "NTCP"),
            bed=float(dose.get("BED_Gy") or 0.0),
            schedule=schedule(plan),
        )


def of_brain(figures: Mapping[str, Any], key: str) -> float | None:
    """Return a dose figure of the normal brain of an arm, or None when its figures do not tell."""
    brain = ((figures.get("dose") or {}).get("structures") or {}).get("brain") or {}
    value = brain.get(key)
    return None if value is None else float(value)


def outcomes(figures: Mapping[str, Mapping[str, Any]], plans: Mapping[str, TherapyPlan]) -> tuple[Outcome, ...]:
    """Return the outcome of every arm, given figures and plans by name."""
    return tuple(Outcome.of(name, entry, plans.get(name, UNTREATED)) for name, entry in figures.items())


def reference(arms: Sequence[Outcome]) -> Outcome | None:
    """Return the arm without treatment that the others are compared with."""
    return next((arm for arm in arms if not arm.treated), None)


def least(arms: Sequence[Outcome]) -> list[Outcome]:
    """Return the arms with the least burden, ascending: the smallest, and those that are the same as it."""
    ordered = sorted(arms, key=lambda arm: arm.burden)
    return [arm for arm in ordered if same(arm.burden, ordered[0].burden)]


def same(one: float, other: float) -> bool:
    """Tell whether two burdens, mm³, are too close to choose by."""
    return abs(one - other) <= max(SAME * min(one, other), SAME_VOLUME)


def pareto(arms: Sequence[Outcome]) -> list[Outcome]:
    """Return the treated arms that no other treated arm beats, by rising dose to the brain."""
    known = [(arm.brain, arm.burden, arm) for arm in arms if arm.treated and arm.brain is not None]
    kept = [
        (brain, burden, arm)
        for brain, burden, arm in known
        if not any(b <= brain and v <= burden and (b, v) != (brain, burden) for b, v, _ in known)
    ]
    return [arm for _, _, arm in sorted(kept, key=lambda entry: entry[:2])]


def shown_in_full(arms: Sequence[Outcome]) -> tuple[str, ...]:
    """Return the arms that a report shows with all their pictures, in their order.

    All, when they are few. Else the one without treatment, the plan that leaves the least burden, and the one in the
    middle of the Pareto set; others in their place where these are not three.
    """
    if len(arms) <= FEW:
        return tuple(arm.name for arm in arms)
    treated = sorted((arm for arm in arms if arm.treated), key=lambda arm: arm.burden)
    free, front = reference(arms), pareto(arms)
    wanted = [] if free is None else [free]
    wanted += [*treated[:1], *front[len(front) // 2 :], *treated, *arms]
    chosen = list(dict.fromkeys(arm.name for arm in wanted))[:CHOSEN]
    return tuple(arm.name for arm in arms if arm.name in chosen)
