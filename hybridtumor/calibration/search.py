"""The search for a mode from one start or several, and draws around it: what a calibration does with its problem."""

from hybridtumor.calibration.estimation import Estimate, Multistart, gauss_newton, multistart
from hybridtumor.calibration.fit import FitOptions
from hybridtumor.calibration.posterior import Laplace
from hybridtumor.calibration.problem import Problem
from hybridtumor.calibration.sampling import Samples, sample


def search(problem: Problem, options: FitOptions, tolerance: float) -> tuple[Estimate, Multistart | None]:
    """Return the mode of the posterior, and all descents where there were several.

    `tolerance` is the gain in −ln of the posterior that ends a descent; errors as `gauss_newton` and `multistart`.
    """
    if options.starts > 1:
        starts = multistart(
            problem.objective,
            problem.priors,
            options.starts,
            options.seed,
            information=problem.information,
            tolerance=tolerance,
            most_evaluations=options.most_evaluations,
        )
        return starts.best, starts
    estimate = gauss_newton(
        problem.objective,
        problem.information,
        problem.priors,
        tolerance=tolerance,
        most_evaluations=options.most_evaluations,
    )
    return estimate, None


def around(problem: Problem, estimate: Estimate) -> Laplace:
    """Return the normal posterior around a mode."""
    return Laplace.from_information(problem.priors, estimate.coordinates, problem.information(estimate.coordinates))


def sampled(problem: Problem, posterior: Laplace, options: FitOptions) -> Samples | None:
    """Return draws of the posterior itself, None where none are asked for; errors as `sample`."""
    if not options.sample_steps:
        return None
    return sample(lambda x: sum(problem.misfits(x)), posterior, seed=options.seed, steps=options.sample_steps)


def sampled_notes(samples: Samples | None) -> list[str]:
    """Return what draws say of every unknown, in sentences."""
    if samples is None:
        return []
    said = "; ".join(f"{name} {interval}" for name, interval in samples.intervals().items())
    return [f"By sampling, {samples.effective:.0f} independent draws: {said}.", *samples.notes]
