r"""What the data tell and what they leave open, in words.

Of each unknown, the share of its prior's variance that the data removed, 1 − C_ii; of each pair, the correlation. A
wave of growth shows its speed and its width,

    v = 2 √(D ρ),      λ = √(D/ρ)

which scans far apart in time, and the blur of a border, tell separately: often v is known and D and ρ are not. The
direction of the largest eigenvalue of C is what the data say least about.
"""

from itertools import combinations

import numpy as np

from hybridtumor.calibration.posterior import LEVEL, Interval, Laplace

UNINFORMED, WEAKLY_INFORMED = 0.25, 0.75
"""Share of the prior's variance removed below which the data say nothing, and below which they say little."""

INSEPARABLE = 0.9
"""|Correlation| above which two unknowns cannot be told apart."""

NAMED = 0.3
"""Part of a direction (of length 1) from which on an unknown is named in it."""

DIFFUSION, PROLIFERATION = "diffusion_white", "proliferation"


def identifiability(posterior: Laplace, level: float = LEVEL) -> list[str]:
    """Return short sentences on what the data told, the most important first."""
    intervals = posterior.intervals(level)
    told = [_told(name, share, intervals[name]) for name, share in posterior.informed.items()]
    return [
        f"Intervals hold the value with a probability of {level:.0%}, if the model and its errors are right.",
        *told, *_pairs(posterior), *_wave(posterior, level), *_edges(posterior), _weakest(posterior),
    ]  # fmt: skip


def inseparable(posterior: Laplace) -> list[tuple[str, str, float]]:
    """Return the pairs that cannot be told apart with their correlation, the closest first."""
    names, R = posterior.priors.names, posterior.correlation
    pairs = [(names[i], names[j], float(R[i, j])) for i, j in combinations(range(len(names)), 2)]
    return sorted((pair for pair in pairs if abs(pair[2]) > INSEPARABLE), key=lambda pair: -abs(pair[2]))


def front(posterior: Laplace, level: float = LEVEL) -> dict[str, Interval]:
    """Return ``speed``, mm/day, and ``width``, mm, of the front; nothing when D or ρ is no unknown."""
    if not {DIFFUSION, PROLIFERATION} <= set(posterior.priors.names):
        return {}
    return {
        "speed": posterior.derived(lambda v: 2 * np.sqrt(v[DIFFUSION] * v[PROLIFERATION]), "mm/day", level=level),
        "width": posterior.derived(lambda v: np.sqrt(v[DIFFUSION] / v[PROLIFERATION]), "mm", level=level),
    }


def _told(name: str, share: float, interval: Interval) -> str:
    """Say how well one unknown is known."""
    if share < UNINFORMED:
        verdict = "not informed by the data, the value is the prior's"
    elif share < WEAKLY_INFORMED:
        verdict = "informed weakly"
    else:
        verdict = "informed by the data"
    return f"{name}: {interval}; {verdict} ({share:.0%} of the prior variance removed)."


def _pairs(posterior: Laplace) -> list[str]:
    """Say which pairs cannot be told apart, and what of them is known."""
    sentences = []
    for a, b, r in inseparable(posterior):
        known = (
            "one can be traded for the other, only what they do together is known"
            if r < 0
            else "they rise and fall together, only their ratio is known"
        )
        sentences.append(f"{a} and {b} cannot be told apart: correlation {r:+.2f}; {known}.")
    return sentences


def _wave(posterior: Laplace, level: float) -> list[str]:
    """Say how well speed and width of the front are known."""
    found = front(posterior, level)
    if not found:
        return []
    spread = {name: np.log(interval.high / interval.low) for name, interval in found.items()}
    better, worse = sorted(spread, key=lambda name: spread[name])
    sentence = (
        f"Front: speed {found['speed']}, width {found['width']};"
        f" the ends of the interval differ by a factor of {np.exp(spread[better]):.3g} for the {better}"
        f" and of {np.exp(spread[worse]):.3g} for the {worse}."
    )
    return [sentence]


def _edges(posterior: Laplace) -> list[str]:
    """Say which unknowns lie on a bound of their prior."""
    sentences = []
    for unknown, x, (low, high) in zip(posterior.priors.unknowns, posterior.mean, posterior.priors.bounds, strict=True):
        if min(x - low, high - x) < 1e-6:
            end = unknown.low if x - low < high - x else unknown.high
            sentences.append(
                f"{unknown.name} lies on its bound, {end:g} {unknown.unit}: the data ask for more than the prior"
                " allows; its interval is cut off there."
            )
    return sentences


def _weakest(posterior: Laplace) -> str:
    """Say in which direction the data tell least."""
    eigenvalues, vectors = np.linalg.eigh(posterior.covariance)
    direction = vectors[:, -1] * np.sign(vectors[np.abs(vectors[:, -1]).argmax(), -1])
    order = np.argsort(-np.abs(direction))
    parts = [
        f"{posterior.priors.names[i]} {'up' if direction[i] > 0 else 'down'}"
        for i in order
        if abs(direction[i]) >= NAMED
    ]
    return (
        f"Least known direction: {' with '.join(parts)},"
        f" {np.sqrt(eigenvalues[-1]):.2g} of the prior's standard deviation is left."
    )
