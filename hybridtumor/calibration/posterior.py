r"""How sure the data are: the normal approximation of the posterior at its mode, in coordinates.

    p(x | data) ≈ N(x̂, C) within the bounds,      C = (F(x̂) + I)⁻¹

with the Fisher information F of the data (Gauss–Newton: no second derivatives of the model) and the prior's I. An
interval of an unknown is that of its marginal, cut off at its bounds; on the log scale it is a log-normal one.
(Laplace's approximation; Tierney & Kadane, J. Am. Stat. Assoc. 1986.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, special

from hybridtumor.calibration.unknowns import Priors
from hybridtumor.errors import ConvergenceError, InputError

Array = NDArray[np.float64]

LEVEL = 0.9
"""Probability of an interval."""

MOST_PROPOSALS, BLOCK = 500, 256
"""Proposals per draw after which a posterior is said to lie outside its bounds, and how many are made at once."""


@dataclass(frozen=True)
class Interval:
    """Median of a quantity, and the bounds between which it lies with a given probability, in its unit."""

    low: float
    median: float
    high: float
    unit: str = ""

    @classmethod
    def of(cls, numbers: ArrayLike, unit: str = "") -> "Interval":
        """Return the interval of three numbers: low, median, high."""
        low, median, high = np.asarray(numbers, np.float64).tolist()
        return cls(low, median, high, unit)

    def __str__(self) -> str:
        """Return the median and the interval for people."""
        unit = "" if self.unit in {"", "1"} else f" {self.unit}"
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g}){unit}"


@dataclass(frozen=True, eq=False)
class Laplace:
    """A normal posterior in coordinates.

    Parameters
    ----------
    priors
        The unknowns.
    mean
        x̂, (p,).
    covariance
        C, (p, p).

    Raises
    ------
    InputError
        A mean that does not fit, or a covariance that is not symmetric and positive.
    """

    priors: Priors
    mean: Array
    covariance: Array

    def __post_init__(self) -> None:
        p = len(self.priors)
        object.__setattr__(self, "mean", self.priors.checked(self.mean))
        C = np.asarray(self.covariance, np.float64)
        if C.shape != (p, p) or not np.isfinite(C).all() or np.abs(C - C.T).max() > 1e-8 * np.abs(C).max():
            raise InputError(f"posterior: expected a finite symmetric covariance {(p, p)}, got shape {C.shape}.")
        if np.linalg.eigvalsh(C).min() <= 0:
            raise InputError("posterior: expected a positive covariance, got an eigenvalue that is not.")
        object.__setattr__(self, "covariance", 0.5 * (C + C.T))

    @classmethod
    def from_information(cls, priors: Priors, mean: ArrayLike, information: ArrayLike) -> "Laplace":
        """Return the posterior at a mode, C = (F + I)⁻¹.

        Parameters
        ----------
        priors
            The unknowns.
        mean
            Mode, (p,), coordinates.
        information
            Fisher information of the data there, (p, p), without the prior.

        Raises
        ------
        InputError
            An information that does not fit or is not finite, or that has a negative eigenvalue.
        """
        F = np.asarray(information, np.float64)
        p = len(priors)
        if F.shape != (p, p) or not np.isfinite(F).all():
            raise InputError(f"posterior: expected a finite information {(p, p)}, got shape {F.shape}.")
        eigenvalues, vectors = np.linalg.eigh(0.5 * (F + F.T))
        if eigenvalues.min() < -1e-8 * max(1.0, eigenvalues.max()):
            raise InputError(
                f"posterior: expected an information without negative eigenvalues, got {eigenvalues.min():.3g}."
            )
        C = (vectors / (1 + np.maximum(eigenvalues, 0))) @ vectors.T
        return cls(priors, np.asarray(mean, np.float64), C)

    @property
    def deviations(self) -> Array:
        """Standard deviation of every coordinate, in units of the prior's, (p,)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlation(self) -> Array:
        """Correlations of the coordinates, (p, p)."""
        return self.covariance / np.outer(self.deviations, self.deviations)

    @property
    def informed(self) -> dict[str, float]:
        """Share of the prior's variance that the data removed, by name: 0 they say nothing, 1 all is known."""
        return {n: float(1 - v) for n, v in zip(self.priors.names, np.diag(self.covariance), strict=True)}

    def quantiles(self, probabilities: ArrayLike) -> Array:
        """Return quantiles (q, p) of the marginals within the bounds, in physical units."""
        low, high = ((bound - self.mean) / self.deviations for bound in self.priors.bounds.T)
        start, end = special.ndtr(low), special.ndtr(high)
        q = np.atleast_1d(np.asarray(probabilities, np.float64))[:, None]
        z = np.clip(special.ndtri(start + (end - start) * q), low, high)
        return self.priors.physical(self.mean + self.deviations * z)

    def intervals(self, level: float = LEVEL) -> dict[str, Interval]:
        """Return the interval of every unknown, in physical units, by name.

        Raises
        ------
        InputError
            A level that is not between 0 and 1.
        """
        table = self.quantiles(tails(level))
        return {u.name: Interval.of(column, u.unit) for u, column in zip(self.priors.unknowns, table.T, strict=True)}

    def draws(self, count: int, seed: int) -> Array:
        """Return draws of the posterior within the bounds, (count, p), coordinates; more draws begin with the same.

        Raises
        ------
        ConvergenceError
            Hardly any of the normal distribution lies within the bounds.
        InputError
            Fewer than one draw.
        """
        if count < 1:
            raise InputError(f"posterior: expected at least 1 draw, got {count}.")
        rng, (low, high) = np.random.default_rng(seed), self.priors.bounds.T
        kept = np.empty((0, len(self.mean)))
        for _ in range(-(-count * MOST_PROPOSALS // BLOCK)):
            block = self.mean + rng.standard_normal((BLOCK, len(self.mean))) @ self._root.T
            kept = np.concatenate([kept, block[((block >= low) & (block <= high)).all(axis=1)]])
            if len(kept) >= count:
                return kept[:count]
        raise ConvergenceError(
            f"posterior: expected draws within the bounds, {len(kept)} of {count} were found in"
            f" {MOST_PROPOSALS} tries each. Widen the bounds, or sample."
        )

    def derived(
        self,
        function: Callable[[dict[str, Array]], Array],
        unit: str = "",
        *,
        level: float = LEVEL,
        count: int = 4000,
        seed: int = 0,
    ) -> Interval:
        """Return the interval of a function of physical values (name to draws, (count,)), from draws."""
        table = self.priors.physical(self.draws(count, seed))
        found = function(dict(zip(self.priors.names, table.T, strict=True)))
        return Interval.of(np.quantile(found, tails(level)), unit)

    @cached_property
    def _root(self) -> Array:
        return np.asarray(linalg.cholesky(self.covariance, lower=True))


def tails(level: float) -> tuple[float, float, float]:
    """Return the probabilities of the lower end, the median and the upper end of an interval."""
    if not 0 < level < 1:
        raise InputError(f"interval: expected a probability between 0 and 1, got {level:g}.")
    return 0.5 * (1 - level), 0.5, 0.5 * (1 + level)
