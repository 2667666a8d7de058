r"""From slopes in the log-kill fields of a plan to slopes in its dose maps.

With d' = D / (n OER) per fraction, d̂ = min(d', d_T) and s the local response (`hybridtumor.models.radiation`)

    linear = s (α d' + 2 β d̂ (d' − d̂))      ∂/∂d' = s α below d_T, s (α + 2 β d_T) above
    root   = √(s β) d̂                        ∂/∂d' = √(s β) below d_T, 0 above

and a product of two roots hands its slope to both. The way from the grid to the points is linear; its transpose takes
the slopes back.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hybridtumor.models.cell_kill import KillSchedule, Sampler, course_terms
from hybridtumor.models.oxygen import UNIFORM, LocalResponse
from hybridtumor.parameters import TreatmentResponse
from hybridtumor.therapy import TherapyPlan

Array = NDArray[np.float64]


def dose_slopes(
    plan: TherapyPlan,
    response: TreatmentResponse,
    kill: KillSchedule,
    slopes: Sequence[Array],
    sample: Sampler,
    spread: Callable[[Array], Array],
    local: LocalResponse = UNIFORM,
) -> tuple[Array, ...]:
    """Return ∂J/∂D of every course of a plan, per Gy of its total dose, shape of the grid.

    Parameters
    ----------
    plan, response, sample, local
        What `kill` was made from by `KillSchedule.from_plan`.
    kill
        The schedule.
    slopes
        ∂J/∂ of every field of `kill` at the points.
    spread
        Transpose of `sample`.
    """
    courses = plan.active.courses
    terms = [course_terms(course, response, sample, local) for course in courses]
    factor = 1.0 if local.factor is None else np.asarray(sample(local.factor), np.float64)
    beta, ceiling = response.alpha / response.alpha_beta, response.transition_dose
    by_root = [np.zeros_like(part.root) for part in terms]
    for (a, b), slope in zip(kill.products, slopes[len(courses) :], strict=True):
        by_root[a] += slope * terms[b].root
        by_root[b] += slope * terms[a].root
    found = []
    for course, part, linear, root in zip(courses, terms, slopes, by_root, strict=False):
        below = np.ones_like(part.root, bool)
        if ceiling is not None:
            below = part.root < np.sqrt(factor * beta) * ceiling
        above = 0.0 if ceiling is None else 2 * beta * ceiling
        per_dose = linear * factor * np.where(below, response.alpha, response.alpha + above)
        per_dose += root * np.where(below, np.sqrt(factor * beta), 0.0)
        on_grid = spread(per_dose / course.fractions)
        found.append(on_grid if local.oer is None else on_grid / local.oer)
    return tuple(found)
