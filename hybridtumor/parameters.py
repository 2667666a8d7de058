"""Parameters of growth and of the response to treatment, each with unit, default and source.

Defaults are the values in common use that SCIENCE tables list: diffusivity and proliferation after Lipková et al.
(IEEE Trans. Med. Imaging 2019), radiosensitivity after Rockne et al. (2009–2010), temozolomide's half-life of 1.8 h.
"""

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from hybridtumor import units
from hybridtumor.errors import InputError

GrowthLaw = Literal["logistic", "gompertz"]


class _Parameters(BaseModel):
    """Immutable values; quantities are given as text with a unit and held as floats in the field's unit."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class GrowthParameters(_Parameters):
    """Parameters of ∂u/∂t = ∇·(D ∇u) + ρ g(u).

    Attributes
    ----------
    diffusion_white, diffusion_grey
        D in white and grey matter, mm²/day.
    proliferation
        ρ, 1/day.
    law
        g(u): ``logistic`` u(1−u), or ``gompertz`` u ln(1/u).
    """

    diffusion_white: units.Diffusivity = "0.13 mm^2/day"
    diffusion_grey: units.Diffusivity = "0.013 mm^2/day"
    proliferation: units.Rate = "0.025 1/day"
    law: GrowthLaw = "logistic"

    @model_validator(mode="after")
    def _within_physical_bounds(self) -> Self:
        if self.diffusion_white <= 0 or self.diffusion_grey <= 0:
            raise InputError("growth: expected positive diffusivities.")
        if self.proliferation < 0:
            raise InputError("growth: expected a proliferation rate that is not negative.")
        return self

    @property
    def front_speed(self) -> float:
        """Asymptotic speed 2√(Dρ) of the front in white matter, mm/day."""
        return 2 * math.sqrt(self.diffusion_white * self.proliferation)

    @property
    def front_width(self) -> float:
        """Width √(D/ρ) of the front in white matter, mm; infinite without proliferation."""
        return math.sqrt(self.diffusion_white / self.proliferation) if self.proliferation > 0 else math.inf


class TreatmentResponse(_Parameters):
    """How sensitive the cells are.

    Attributes
    ----------
    alpha
        Linear coefficient of the linear-quadratic model, 1/Gy.
    alpha_beta
        Ratio α/β, Gy.
    temozolomide
        Kill rate at the peak concentration after a dose of 75 mg/m², 1/day; proportional to the dose.
    temozolomide_clearance
        First-order clearance of the drug, 1/day; ln 2 · 24 h / 1.8 h by default.
    """

    alpha: units.InverseDose = "0.035 1/Gy"
    alpha_beta: units.Dose = "10 Gy"
    temozolomide: units.Rate = "0.15 1/day"
    temozolomide_clearance: units.Rate = "9.2419624 1/day"

    @model_validator(mode="after")
    def _within_physical_bounds(self) -> Self:
        if self.alpha < 0 or self.temozolomide < 0:
            raise InputError("response: expected sensitivities that are not negative.")
        if self.alpha_beta <= 0 or self.temozolomide_clearance <= 0:
            raise InputError("response: expected α/β and the clearance to be positive.")
        return self


class ImagingThresholds(_Parameters):
    """Cell densities (fractions of carrying capacity) at which the tumour shows.

    After Lipková et al. 2019 and Ezhov et al. 2022: oedema on FLAIR from about 0.20, enhancement on T1ce from about
    0.60, necrosis from about 0.90.
    """

    edema: float = 0.20
    enhancing: float = 0.60
    necrosis: float = 0.90

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.edema < self.enhancing < self.necrosis < 1:
            raise InputError("thresholds: expected 0 < oedema < enhancing < necrosis < 1.")
        return self
