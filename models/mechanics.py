r"""Mass effect of a growing tumour: elastic tissue that a growth strain pushes apart.

    ∇·P = 0 in the head,   v = 0 on its outer boundary,   P = ∂W/∂F,   F = I + ∇v

v (mm) is the displacement since day 0. A tissue that fills with tumour n = u + d wants to stretch by

    g = (1 + γ n_t) / (1 + γ n_0),

relative to day 0, so that day 0 is free of stress. W (kPa) is the potential per volume of day 0:

    linear        W = μ e:e + λ/2 (tr e)² − p tr ε,   ε = sym ∇v,   e = ε − (g − 1) I
    neo-hookean   W = g³ Ψ(F/g) − p det F,   Ψ(F) = μ/2 (tr FᵀF − 3 − 2 ln J) + λ/4 (J² − 1 − 2 ln J),   J = det F

The second is the multiplicative decomposition F = F_e F_g, F_g = g I (Rodriguez, Hoger & McCulloch, J. Biomech. 1994);
its volumetric term (Simo & Taylor 1982) makes Ψ polyconvex, which (ln J)² is not beyond J = e. Both materials agree to
first order in the strain. p is the pressure of ventricular CSF above that of day 0, times its share of the volume.

Cauchy stress (kPa), from it the von Mises stress √(3/2 s:s), s = σ − tr σ/3 I, and the pressure −tr σ/3:

    linear        σ = 2μ e + λ tr e I − p I
    neo-hookean   σ = (μ (F_e F_eᵀ − I) + λ/2 (J_e² − 1) I) / J_e − p I

Elasticity of a mixture: the arithmetic means of Young's modulus and of Poisson's ratio over the shares n of tumour,
(1 − n) c of CSF and (1 − n)(1 − c) of brain, c the share of CSF on day 0. Cells that grow into damaged ones can take n
beyond 1: such tissue is all tumour, and goes on stretching.
"""

from typing import Any

import numpy as np
import ufl
from numpy.typing import NDArray

from hybridtumor.parameters import Material, MechanicalParameters

Array = NDArray[np.float64]


def growth_stretch(growth_strain: float, initial: Array, density: Array) -> Array:
    """Return g = (1 + γ n_t) / (1 + γ n_0); exactly 1 where nothing changed.

    Parameters
    ----------
    growth_strain
        γ.
    initial, density
        n_0 and n_t, any shape.
    """
    return np.asarray((1 + growth_strain * density) / (1 + growth_strain * initial))


def lame(parameters: MechanicalParameters, csf: Array, tumour: Array) -> tuple[Array, Array]:
    """Return Lamé's μ and λ of a mixture, kPa.

    Parameters
    ----------
    parameters
        Young's moduli and Poisson's ratios of the parts.
    csf
        c, share of CSF on day 0, any shape.
    tumour
        n ≥ 0, same shape; from 1 on the tissue is all tumour.
    """
    tumour = np.minimum(tumour, 1)
    p, brain, fluid = parameters, (1 - tumour) * (1 - csf), (1 - tumour) * csf
    E = brain * p.stiffness_brain + fluid * p.stiffness_csf + tumour * p.stiffness_tumour
    nu = brain * p.poisson_brain + fluid * p.poisson_csf + tumour * p.poisson_tumour
    return np.asarray(E / (2 * (1 + nu))), np.asarray(E * nu / ((1 + nu) * (1 - 2 * nu)))


def linear_energy(F: Any, growth: Any, mu: Any, lmbda: Any) -> Any:
    """Return ψ = μ e:e + λ/2 (tr e)² as a UFL expression of F, for small strains."""
    identity = ufl.Identity(3)
    e = ufl.sym(F - identity) - (growth - 1) * identity
    return mu * ufl.inner(e, e) + lmbda / 2 * ufl.tr(e) ** 2


def neo_hookean_energy(F: Any, growth: Any, mu: Any, lmbda: Any) -> Any:
    """Return g³ Ψ(F/g) as a UFL expression of F."""
    elastic = F / growth
    J = ufl.det(elastic)
    psi = mu / 2 * (ufl.inner(elastic, elastic) - 3 - 2 * ufl.ln(J)) + lmbda / 4 * (J**2 - 1 - 2 * ufl.ln(J))
    return growth**3 * psi


def potential_density(material: Material, F: Any, growth: Any, mu: Any, lmbda: Any, pressure: Any) -> Any:
    """Return W, kPa, as a UFL expression.

    Parameters
    ----------
    material
        Whose energy.
    F
        Deformation gradient I + ∇v.
    growth, mu, lmbda
        g; Lamé's coefficients, kPa.
    pressure
        p, kPa.
    """
    if material == "linear":
        return linear_energy(F, growth, mu, lmbda) - pressure * (ufl.tr(F) - 3)
    return neo_hookean_energy(F, growth, mu, lmbda) - pressure * ufl.det(F)


def first_piola(material: Material, F: Any, growth: Any, mu: Any, lmbda: Any, pressure: Any) -> Any:
    """Return P = ∂W/∂F, kPa, as a UFL expression; arguments as for `potential_density`."""
    F = ufl.variable(F)
    return ufl.diff(potential_density(material, F, growth, mu, lmbda, pressure), F)


def cauchy_stress(material: Material, F: Array, growth: Array, mu: Array, lmbda: Array, pressure: Array) -> Array:
    """Return σ in every cell, (m, 3, 3), kPa.

    Parameters
    ----------
    material
        Whose stress.
    F
        Deformation gradients, (m, 3, 3).
    growth, mu, lmbda, pressure
        g; Lamé's coefficients and p, kPa: (m,).
    """
    identity = np.eye(3)
    g, m, k, p = (np.asarray(values)[:, None, None] for values in (growth, mu, lmbda, pressure))
    if material == "linear":
        e = (F + F.swapaxes(1, 2)) / 2 - g * identity
        return np.asarray(2 * m * e + k * np.trace(e, axis1=1, axis2=2)[:, None, None] * identity - p * identity)
    elastic = F / g
    J = np.linalg.det(elastic)[:, None, None]
    shear = elastic @ elastic.swapaxes(1, 2) - identity
    return np.asarray((m * shear + k / 2 * (J**2 - 1) * identity) / J - p * identity)


def mean_pressure(stress: Array) -> Array:
    """Return −tr σ/3, (m,), kPa, of stresses (m, 3, 3); positive where tissue is compressed."""
    return np.asarray(-np.trace(stress, axis1=1, axis2=2) / 3)


def von_mises(stress: Array) -> Array:
    """Return √(3/2 s:s), (m,), kPa, of stresses (m, 3, 3)."""
    deviator = stress + mean_pressure(stress)[:, None, None] * np.eye(3)
    return np.asarray(np.sqrt(1.5 * (deviator**2).sum((1, 2))))
