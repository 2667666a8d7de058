"""Parameters of growth and of the response to treatment, each with unit, default and source.

Defaults are the values in common use that SCIENCE tables list: diffusivity and proliferation after Lipková et al.
(IEEE Trans. Med. Imaging 2019), radiosensitivity after Rockne et al. (2009–2010), temozolomide's half-life of 1.8 h.
"""

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hybridtumor import units
from hybridtumor.errors import InputError

TEMOZOLOMIDE = "temozolomide"

REFERENCE_TEMOZOLOMIDE = 75.0
"""mg/m². The dose of temozolomide whose peak concentration is C = 1 (Stupp et al., N. Engl. J. Med. 2005)."""

GrowthLaw = Literal["logistic", "gompertz", "exponential"]
Material = Literal["linear", "neo-hookean"]


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
        g(u): ``logistic`` u(1−u), ``gompertz`` u ln(1/u), or ``exponential`` u.
    anisotropy
        Factor r ≥ 1 by which cells follow the tracts more strictly than water does, where the patient has a diffusion
        tensor (Jbabdi et al., Magn. Reson. Med. 2005); 1: as water.
    """

    diffusion_white: units.Diffusivity = "0.13 mm^2/day"
    diffusion_grey: units.Diffusivity = "0.013 mm^2/day"
    proliferation: units.Rate = "0.025 1/day"
    law: GrowthLaw = "logistic"
    anisotropy: float = 1.0

    @model_validator(mode="after")
    def _within_physical_bounds(self) -> Self:
        if self.diffusion_white <= 0 or self.diffusion_grey <= 0:
            raise InputError("growth: expected positive diffusivities.")
        if self.proliferation < 0:
            raise InputError("growth: expected a proliferation rate that is not negative.")
        if not 1 <= self.anisotropy <= 100:
            raise InputError(f"growth: expected an anisotropy factor between 1 and 100, got {self.anisotropy:g}.")
        return self

    @property
    def front_speed(self) -> float:
        """Asymptotic speed 2√(Dρ) of the front in white matter, mm/day."""
        return 2 * math.sqrt(self.diffusion_white * self.proliferation)

    @property
    def front_width(self) -> float:
        """Width √(D/ρ) of the front in white matter, mm; infinite without proliferation."""
        return math.sqrt(self.diffusion_white / self.proliferation) if self.proliferation > 0 else math.inf


class DrugResponse(_Parameters):
    """How a drug kills: k = s C(t), C the concentration relative to its peak after the reference dose given at once.

    Attributes
    ----------
    kill_rate
        s, kill rate at the peak concentration after `reference_dose`, 1/day; proportional to the dose.
    half_life
        Of the first-order clearance.
    reference_dose
        Dose of one administration, mg/m², to which `kill_rate` belongs.
    absorption_half_life
        Of the first-order absorption; 0: at once. It delays the kill and does not change its total.
    """

    kill_rate: units.Rate
    half_life: units.Time
    reference_dose: units.DrugDose
    absorption_half_life: units.Time = "0 h"

    @model_validator(mode="after")
    def _within_physical_bounds(self) -> Self:
        if self.kill_rate < 0 or self.absorption_half_life < 0:
            raise InputError("drug: expected a kill rate and an absorption half-life that are not negative.")
        if self.half_life <= 0 or self.reference_dose <= 0:
            raise InputError("drug: expected the half-life and the reference dose to be positive.")
        return self

    @property
    def clearance(self) -> float:
        """λ = ln 2 / half-life, 1/day."""
        return math.log(2) / float(self.half_life)

    @property
    def absorption(self) -> float:
        """k_a = ln 2 / absorption half-life, 1/day; infinite when the drug is there at once."""
        return math.log(2) / self.absorption_half_life if self.absorption_half_life > 0 else math.inf


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
    transition_dose
        d_T, Gy: dose per fraction above which the log-kill goes on along its tangent (LQ-L); None: LQ at every dose.
    repair_half_time
        Half-time of the repair of sublethal damage; 0: complete before the next fraction. It matters for fractions a
        few hours apart, and within long ones; 0.5 to 4 h are in use.
    hypoxia
        Where oxygen comes from: ``none``, everywhere enough; ``density``, from the cell density of day 0 by
        `hybridtumor.models.oxygen`; ``patient``, the patient's map of oxygen.
    oxygen_enhancement
        m, most that oxygen enhances the effect of a dose: OER of anoxic against well-oxygenated cells; 2.5 to 3.
    temozolomide_clearance
        First-order clearance of the drug, 1/day; ln 2 · 24 h / 1.8 h by default.
    drugs
        Name to response of other drugs.
    clearance_half_time
        Time in which half of the damaged cells are cleared away, days; 0: at once. The default is a value in common
        use. Fits to lung tumours after stereotactic radiotherapy gave 28 and 72 days (squamous-cell and adenocarcinoma,
        Chvetsov, Palta & Nagata, Phys. Med. Biol. 2008): lung, not glioblastoma.
    """

    alpha: units.InverseDose = "0.035 1/Gy"
    alpha_beta: units.Dose = "10 Gy"
    transition_dose: units.Dose | None = None
    repair_half_time: units.Time = "0 h"
    hypoxia: Literal["none", "density", "patient"] = "none"
    oxygen_enhancement: float = 3.0
    temozolomide: units.Rate = "0.15 1/day"
    temozolomide_clearance: units.Rate = "9.2419624 1/day"
    clearance_half_time: units.Time = "20 day"
    drugs: dict[str, DrugResponse] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _within_physical_bounds(self) -> Self:
        if self.alpha < 0 or self.temozolomide < 0:
            raise InputError("response: expected sensitivities that are not negative.")
        if self.alpha_beta <= 0 or self.temozolomide_clearance <= 0:
            raise InputError("response: expected α/β and the clearance to be positive.")
        if self.clearance_half_time < 0:
            raise InputError("response: expected a half-time of damaged cells that is not negative.")
        if self.transition_dose is not None and self.transition_dose <= 0:
            raise InputError("response: expected a positive transition dose.")
        if not 0 <= self.repair_half_time <= 1:
            raise InputError(
                f"response: expected a half-time of repair between 0 and 24 h, got {24 * self.repair_half_time:g} h."
            )
        if not 1 <= self.oxygen_enhancement <= 4:
            raise InputError(
                f"response: expected an oxygen enhancement between 1 and 4, got {self.oxygen_enhancement:g}."
            )
        if TEMOZOLOMIDE in self.drugs:
            raise InputError(
                "response: expected temozolomide under `temozolomide` and `temozolomide_clearance`, not under `drugs`."
            )
        return self

    def drug(self, name: str) -> DrugResponse:
        """Return how a drug kills.

        Raises
        ------
        InputError
            The drug is unknown.
        """
        if name == TEMOZOLOMIDE:
            return DrugResponse.model_construct(
                kill_rate=self.temozolomide,
                half_life=math.log(2) / self.temozolomide_clearance,
                reference_dose=REFERENCE_TEMOZOLOMIDE,
                absorption_half_life=0.0,
            )
        if name not in self.drugs:
            known = ", ".join((TEMOZOLOMIDE, *self.drugs))
            raise InputError(
                f"response: expected the response to {name!r} under response.drugs, found {known}. Say how it kills."
            )
        return self.drugs[name]


class MechanicalParameters(_Parameters):
    """Parameters of the tissue mechanics.

    Stiffness after Subramanian et al. (J. Math. Biol. 2019), growth strain after Abler et al.

    Attributes
    ----------
    material
        ``linear``: small strains, Hooke's law; ``neo-hookean``: finite strains, multiplicative growth.
    growth_strain
        γ: stretch of a tissue that fills with tumour, (1 + γ n_t) / (1 + γ n_0) since day 0.
    stiffness_brain, stiffness_tumour, stiffness_csf
        Young's moduli, kPa.
    poisson_brain, poisson_tumour, poisson_csf
        Poisson's ratios.
    ventricle_pressure
        Pressure of the CSF in the ventricles above that of day 0, kPa.
    carried
        Whether cells move with the tissue in the growth equation too: diffusion pulled back to day 0, J u conserved.
    diffusion_stress
        η_D: D falls as exp(−η_D σ_vM) with the von Mises stress, 1/kPa.
    proliferation_pressure
        η_ρ: ρ falls as exp(−η_ρ p⁺) with the compressive pressure, 1/kPa.
    interval
        Longest time between two solutions of equilibrium in a two-way coupling, days.
    """

    material: Material = "neo-hookean"
    growth_strain: float = 0.15
    stiffness_brain: units.Pressure = "2.1 kPa"
    stiffness_tumour: units.Pressure = "8.0 kPa"
    stiffness_csf: units.Pressure = "0.1 kPa"
    poisson_brain: float = 0.45
    poisson_tumour: float = 0.45
    poisson_csf: float = 0.1
    ventricle_pressure: units.Pressure = "0 kPa"
    carried: bool = False
    diffusion_stress: units.InversePressure = "0 1/kPa"
    proliferation_pressure: units.InversePressure = "0 1/kPa"
    interval: units.Time = "15 day"

    @model_validator(mode="after")
    def _within_physical_bounds(self) -> Self:
        if not 0 <= self.growth_strain <= 0.5:
            raise InputError(f"mechanics: expected a growth strain between 0 and 0.5, got {self.growth_strain:g}.")
        if min(self.stiffness_brain, self.stiffness_tumour, self.stiffness_csf) <= 0:
            raise InputError("mechanics: expected positive stiffnesses.")
        for ratio in (self.poisson_brain, self.poisson_tumour, self.poisson_csf):
            if not 0 <= ratio < 0.5:
                raise InputError(f"mechanics: expected Poisson's ratios in [0, 0.5), got {ratio:g}.")
        if self.diffusion_stress < 0 or self.proliferation_pressure < 0:
            raise InputError("mechanics: expected stress coefficients that are not negative.")
        if self.interval <= 0:
            raise InputError(f"mechanics: expected a positive interval, got {self.interval:g} days.")
        return self

    @property
    def two_way(self) -> bool:
        """Whether mechanics acts back on growth."""
        return self.carried or self.diffusion_stress > 0 or self.proliferation_pressure > 0


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
