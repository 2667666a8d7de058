r"""Under which parameters a dose is optimised: draws of a calibration's posterior, or of the prior, or one set alone.

    posterior   θ⁽ᵏ⁾ of `hybridtumor.calibration_file.Calibration.draw`
    prior       D, ρ ← D e^{s x}, ρ e^{s x},   α ← α e^{s_α x'},   temozolomide likewise,    x ~ N(0, 1) within bounds

Without a calibration one scan says how wide a tumour's front √(D/ρ) is, not how fast 2√(Dρ) it moves: D and ρ move
together, so that the width stays. The spreads are those of `hybridtumor.calibration.unknowns`, the medians what is
stated. Sobol points: few draws cover the priors evenly.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from hybridtumor.calibration.unknowns import Priors
from hybridtumor.calibration_file import Calibration
from hybridtumor.dose_objective import Biology
from hybridtumor.errors import InputError
from hybridtumor.parameters import GrowthParameters, TreatmentResponse

MOST_DRAWS = 256

VARIED = ("proliferation", "alpha", "temozolomide")


@dataclass(frozen=True)
class BiologyDraws:
    """Parameters of every draw.

    Parameters
    ----------
    source
        ``posterior``, ``prior`` or ``parameters``.
    biology
        Growth and response of every draw.
    """

    source: str
    biology: tuple[Biology, ...]

    @property
    def told(self) -> list[dict[str, float]]:
        """Name to value of the parameters that draws differ in, for every draw."""
        return [
            {
                "diffusion_white": float(growth.diffusion_white),
                "diffusion_grey": float(growth.diffusion_grey),
                "proliferation": float(growth.proliferation),
                "alpha": float(response.alpha),
                "temozolomide": float(response.temozolomide),
            }
            for growth, response in self.biology
        ]


def biology_draws(
    growth: GrowthParameters,
    response: TreatmentResponse,
    calibration: Calibration | None,
    count: int,
    seed: int = 0,
) -> BiologyDraws:
    """Return the draws.

    Parameters
    ----------
    growth, response
        What is stated.
    calibration
        Whose posterior is drawn from; None: the prior.
    count, seed
        How many draws, 0 for the parameters (or the estimate) alone, and of the random numbers.

    Raises
    ------
    InputError
        A count or a seed that is negative, or too many draws.
    """
    if not 0 <= count <= MOST_DRAWS or seed < 0:
        raise InputError(
            f"draws: expected 0 to {MOST_DRAWS} draws and a seed that is not negative, got {count} and {seed}."
        )
    if calibration is not None:
        values: tuple[Mapping[str, float] | None, ...] = calibration.draw(count, seed) if count else (None,)
        found = [(calibration.growth(growth, one), calibration.response(response, one)) for one in values]
        return BiologyDraws("posterior" if count else "estimate", tuple(found))
    if count == 0:
        return BiologyDraws("parameters", ((growth, response),))
    return BiologyDraws("prior", tuple(_prior(growth, response, count, seed)))


def _prior(growth: GrowthParameters, response: TreatmentResponse, count: int, seed: int) -> list[Biology]:
    stated = {
        "proliferation": float(growth.proliferation),
        "alpha": float(response.alpha),
        "temozolomide": float(response.temozolomide),
    }
    known = Priors.of(*VARIED)
    names = [u.name for u in known.unknowns if u.low < stated[u.name] < u.high]  # 0 stays 0
    if not names:
        return [(growth, response)] * count
    priors = Priors.of(*names)
    for name in names:
        priors = priors.changed(name, median=stated[name])
    points = qmc.Sobol(len(names), seed=seed).random_base2(int(np.ceil(np.log2(max(count, 1)))))[:count]
    found = []
    for x in priors.from_unit(points):
        values = stated | priors.values(x)
        faster = values["proliferation"] / stated["proliferation"] if stated["proliferation"] > 0 else 1.0
        moved = {name: getattr(growth, name) * faster for name in ("diffusion_white", "diffusion_grey")}
        sensitivity = {name: values[name] for name in ("alpha", "temozolomide")}
        found.append(
            (
                growth.model_copy(update=moved | {"proliferation": values["proliferation"]}),
                response.model_copy(update=sensitivity),
            )
        )
    return found
