"""Calibration of twins, whose truth is known: what it recovers, what its intervals hold, and what it costs.

`python tests/benchmarks/twins.py [--section recovery|coverage|start|brain|separable|demo] [--twins 40] [--first 0]
[--data segmentations ADC]` prints one JSON object; without a section all of them. Twins are made by
`GrowthSimulation.run` with steps of its own; five visits follow day 0, which is known but in `start`.

recovery
    No errors: relative errors of the estimates, from ADC and from segmentations (thresholds unknown too), with twins
    of the calibration's mesh and of one with finer cells.
coverage
    Borders wandering by 1 mm (correlation length 2 mm), ADC with an error of 0.1 in every voxel: the share of 90 %
    intervals that hold the truth, and z = (estimate − truth)/deviation. Truths are drawn from the prior, cut off at two
    standard deviations, D and ρ with 0.4, thresholds with 0.5 of its spread.
start
    The same from segmentations alone, that of day 0 included: the density it shows at default thresholds and width of
    front, taken for known, or at those that are looked for.
brain
    The same with three twins of the MNI152 brain at 1 mm.
separable
    Radiation of one dose everywhere with temozolomide on the same days, and the same with a dose that differs and
    temozolomide later (5 twins): what the report says, and whether the interval of the burden 60 days on holds it.
demo
    77 × 116 × 36 voxels of 1.5 × 1.5 × 3 mm of the MNI152 brain, 120 days, four unknowns, ADC: cost, and prediction of
    the last two visits from the first three.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from twin import (
    GROWTH,
    THRESHOLDS,
    Setting,
    cellularities,
    centred_grid,
    concordance,
    concurrent,
    region_of,
    round_brain,
    round_tumour,
    segmentations,
    sequential,
)

from hybridtumor.atlas import mni152
from hybridtumor.calibration.estimation import Estimate, gauss_newton
from hybridtumor.calibration.identifiability import identifiability, inseparable
from hybridtumor.calibration.posterior import Laplace
from hybridtumor.calibration.problem import Problem
from hybridtumor.calibration.start import DrawnStart, KnownStart, Start
from hybridtumor.calibration.unknowns import Priors
from hybridtumor.grid import Grid, resample
from hybridtumor.models.observation import DataTerm
from hybridtumor.tissue import TissueMap

VISITS = (20.0, 45.0, 70.0, 95.0, 120.0)

TRUTH = {
    "diffusion_white": 0.2,
    "proliferation": 0.03,
    "alpha": 0.045,
    "temozolomide": 0.45,
    "threshold_edema": 0.17,
    "threshold_enhancing": 0.6,
}

PLACE, BEAM = (28.0, -22.0, 28.0), (34.0, -20.0, 28.0)
"""mm, MNI: the tumour in the white matter, and the centre of the dose."""

SPREADS = dict(zip((*GROWTH, *THRESHOLDS), (0.4, 0.4, 1.0, 1.0, 0.5, 0.5), strict=True))
"""Of the truths, in standard deviations of the prior."""

ADC_ERROR, COARSE = 0.1, 1e-2
"""Error of cellularity, and the tolerance of many twins: 0.14 standard deviations of the posterior."""


def fit(problem: Problem, tolerance: float = 1e-4) -> tuple[Estimate, Laplace, float]:
    """Return estimate, posterior and CPU seconds, both found from the prior's median."""
    begin = time.process_time()
    found = gauss_newton(problem.objective, problem.information, problem.priors, tolerance=tolerance)
    posterior = Laplace.from_information(problem.priors, found.coordinates, problem.information(found.coordinates))
    return found, posterior, time.process_time() - begin


def seen(setting: Setting, truth: Mapping[str, float], cell_size: str | None = None) -> dict[float, np.ndarray]:
    """Return living and damaged cells of a twin on the days of the visits and later."""
    forecast = setting.forecast(truth, None if cell_size is None else setting.prepared(cell_size))
    return {day: forecast.visible(day) for day in (*setting.visits, *setting.later)}


def visits(setting: Setting, densities: Mapping[float, np.ndarray]) -> dict[float, np.ndarray]:
    return {day: densities[day] for day in setting.visits}


def recovery() -> dict[str, object]:
    grid = centred_grid((76, 76, 76), (1, 1, 1))
    tissue = round_brain(grid, 35)
    setting = Setting(tissue, round_tumour(tissue, (6, 4, 0), 11), sequential(grid, (12, 6, 0)), VISITS, "3 mm")
    clean = {"border_error": 0.2, "correlation_length": 0.0, "flat": 0.005, "margin": 6.0}
    result: dict[str, object] = {"truth": TRUTH}
    for mesh, cell_size in (("same", None), ("finer", "2 mm")):
        densities = seen(setting, TRUTH, cell_size)
        terms: dict[str, Sequence[DataTerm]] = {
            "ADC": cellularities(setting, densities, region_of(setting, densities), None, 0.01),
            "segmentations": segmentations(setting, densities, TRUTH, None, **clean),
        }
        for data, these in terms.items():
            names = GROWTH if data == "ADC" else (*GROWTH, *THRESHOLDS)
            found, posterior, seconds = fit(setting.problem(these, Priors.of(*names)))
            result[f"{data}, {mesh} mesh"] = {
                "percent_off": {
                    name: round(100 * (value / TRUTH[name] - 1), 2) for name, value in found.values.items()
                },
                "inseparable": inseparable(posterior),
                "converged": found.converged,
                "evaluations": found.evaluations,
                "cpu_seconds": round(seconds, 1),
            }
            _note(data, result[f"{data}, {mesh} mesh"])
    return result


def _small_brain() -> tuple[Grid, TissueMap]:
    grid = centred_grid((38, 38, 38), (1.5, 1.5, 1.5))
    return grid, round_brain(grid, 26)


def _percent_off(found: Estimate, truth: Mapping[str, float]) -> dict[str, float]:
    return {name: round(100 * (value / truth[name] - 1), 2) for name, value in found.values.items()}


def coverage(first: int, twins: int, kinds: Sequence[str]) -> dict[str, object]:
    grid, tissue = _small_brain()
    setting = Setting(tissue, round_tumour(tissue, (6, 4, 0), 9), sequential(grid, (12, 6, 0)), VISITS, "6 mm")
    return _covered(setting, range(first, first + twins), kinds, COARSE)


def start(first: int, twins: int) -> dict[str, object]:
    grid, tissue = _small_brain()
    setting = Setting(tissue, round_tumour(tissue, (6, 4, 0), 9), sequential(grid, (12, 6, 0)), VISITS, "6 mm")
    return _covered(setting, range(first, first + twins), ("taken_for_known", "looked_for"), COARSE)


def brain(first: int, twins: int) -> dict[str, object]:
    tissue = mni152().tissue
    box = np.array([[85, 60, 55], [185, 160, 155]])
    grid = tissue.grid.crop(*box)
    cut = tuple(slice(a, b) for a, b in box.T)
    part = TissueMap(tissue.white[cut], tissue.grey[cut], tissue.csf[cut], grid)
    plan = sequential(grid, BEAM)
    setting = Setting(part, round_tumour(part, PLACE, 11), plan, VISITS, "4 mm")
    return _covered(setting, range(first, first + twins), ("both",), COARSE)


def _covered(setting: Setting, seeds: Sequence[int], kinds: Sequence[str], tolerance: float) -> dict[str, object]:
    """Fit twins and count the intervals that hold the truth."""
    everything = Priors.of(*GROWTH, *THRESHOLDS)
    rows: dict[str, list[dict[str, object]]] = {kind: [] for kind in kinds}
    for seed in seeds:
        x = np.clip(np.random.default_rng(seed).standard_normal(len(everything)), -2, 2) * list(SPREADS.values())
        truth = everything.values(x)
        densities = seen(setting, truth)
        drawn = segmentations(setting, densities, truth, seed, margin=6.0)
        adc = cellularities(setting, densities, region_of(setting, densities), seed, ADC_ERROR)
        terms = {"segmentations": drawn, "ADC": adc, "both": [*drawn, *adc]}
        for kind in kinds:
            priors = Priors.of(*GROWTH) if kind == "ADC" else everything
            start = _drawn_start(setting, truth, seed, kind)
            problem = setting.problem(terms.get(kind, drawn), priors, start)
            found, posterior, seconds = fit(problem, tolerance)
            low, high = posterior.quantiles([0.05, 0.95])
            z = (found.coordinates - x[: len(priors)]) / posterior.deviations
            rows[kind].append(
                {
                    "seed": seed,
                    "held": [bool(a <= truth[n] <= b) for n, a, b in zip(priors.names, low, high, strict=True)],
                    "z": z.round(2).tolist(),
                    "deviations": posterior.deviations.round(3).tolist(),
                    "converged": found.converged,
                    "evaluations": found.evaluations,
                    "cpu_seconds": round(seconds, 1),
                }
            )
            _note(kind, rows[kind][-1])
    return {kind: _summary(found, everything.names) for kind, found in rows.items()}


def _summary(rows: list[dict[str, object]], names: Sequence[str]) -> dict[str, object]:
    held, z = np.array([row["held"] for row in rows]), np.array([row["z"] for row in rows])
    known = names[: held.shape[1]]

    def by_name(values: np.ndarray) -> dict[str, float]:
        return dict(zip(known, values.round(3).tolist(), strict=True))

    return {
        "twins": len(rows),
        "held": by_name(held.mean(axis=0)),
        "mean_z": by_name(z.mean(axis=0)),
        "rms_z": by_name(np.sqrt((z**2).mean(axis=0))),
        "median_deviation": by_name(np.median([row["deviations"] for row in rows], axis=0)),
        "not_converged": sum(not row["converged"] for row in rows),
        "cpu_seconds": round(float(np.sum([row["cpu_seconds"] for row in rows])), 1),
    }


def _drawn_start(setting: Setting, truth: Mapping[str, float], seed: int, kind: str) -> Start | None:
    """Return day 0 as its segmentation tells it."""
    if kind not in {"taken_for_known", "looked_for"}:
        return None
    [labels] = setting.drawn({0.0: setting.density.values}, truth, seed + 10_000, 1.0, 2.0).values()
    start = DrawnStart(labels, setting.tissue.parenchyma, setting.to_nodes)
    if kind == "looked_for":
        return start
    return KnownStart(start.density(Priors.of(*start.names).values(np.zeros(len(start.names)))))


def separable(first: int, twins: int) -> dict[str, object]:
    grid, tissue = _small_brain()
    density = round_tumour(tissue, (6, 4, 0), 9)
    priors = Priors.of(*GROWTH)
    result: dict[str, object] = {}
    for name, plan in (("together", concurrent(grid)), ("apart", sequential(grid, (12, 6, 0)))):
        setting = Setting(tissue, density, plan, VISITS, "6 mm", later=(180.0,))
        held, said, correlations = [], [], []
        seeds = range(first, first + (twins if name == "together" else min(twins, 5)))
        for seed in seeds:
            x = np.clip(np.random.default_rng(seed).standard_normal(len(priors)), -2, 2) * list(SPREADS.values())[:4]
            truth = priors.values(x)
            densities = seen(setting, truth)
            terms = cellularities(setting, visits(setting, densities), region_of(setting, densities), seed, ADC_ERROR)
            problem = setting.problem(terms, priors)
            _, posterior, _ = fit(problem, COARSE)
            pair = [i for i, n in enumerate(priors.names) if n in {"alpha", "temozolomide"}]
            correlations.append(float(posterior.correlation[pair[0], pair[1]]))
            said.append(any("alpha and temozolomide cannot be told apart" in s for s in identifiability(posterior)))
            volume = setting.simulation.domain.gather(setting.simulation.diffusion.volume)
            burdens = np.log([volume @ problem.densities(draw)[180.0] for draw in posterior.draws(24, seed)])
            true = np.log(densities[180.0].sum(dtype=np.float64) * grid.voxel_volume)
            held.append(bool(abs(true - burdens.mean()) < 1.645 * burdens.std(ddof=1) + 0.01))
            _note(name, {"seed": seed, "r": correlations[-1], "burden": [true, burdens.mean(), burdens.std(ddof=1)]})
        result[name] = {
            "twins": len(seeds),
            "report_says_inseparable": sum(said),
            "correlation": [round(min(correlations), 3), round(max(correlations), 3)],
            "burden_held": sum(held),
        }
    return result


def demo(cell_size: str = "4 mm") -> dict[str, object]:
    atlas = mni152().tissue
    affine = np.diag([1.5, 1.5, 3.0, 1.0])
    shape = (77, 116, 36)
    affine[:3, 3] = np.array([20.0, -20.0, 20.0]) - np.diag(affine)[:3] * (np.array(shape) - 1) / 2
    grid = Grid(shape, affine)
    white, grey, csf = (resample(f, atlas.grid, grid) for f in (atlas.white, atlas.grey, atlas.csf))
    tissue = TissueMap(white, grey, csf, grid)
    days = (24.0, 48.0, 72.0, 96.0, 120.0)
    setting = Setting(tissue, round_tumour(tissue, PLACE, 12), sequential(grid, BEAM), days, cell_size)
    truth = {name: TRUTH[name] for name in GROWTH}
    densities = seen(setting, truth)
    region, priors = region_of(setting, densities), Priors.of(*GROWTH)
    terms = cellularities(setting, densities, region, 0, ADC_ERROR)
    begin = time.process_time()
    setting.gradient.steps  # noqa: B018
    prepared = time.process_time() - begin
    problem = setting.problem(terms, priors)
    found, _, seconds = fit(problem)
    counts = dict(problem.effort)
    ratio, forward = _ratio(problem, found.coordinates)
    equivalents = counts["forwards"] + ratio * counts["gradients"]
    past = setting.problem(terms[:3], priors)
    earlier, posterior, _ = fit(past)
    predicted = past.densities(earlier.coordinates)
    transfer = setting.simulation.brain.transfer
    held_out = {}
    for term in terms[3:]:
        n, true = transfer.to_grid(predicted[term.day]), densities[term.day]
        held_out[f"day {term.day:g}"] = {
            "TCC_percent_off": round(100 * (float(n.sum() / true.sum(dtype=np.float64)) - 1), 2),
            "CCC_with_the_truth": round(concordance(n[region], true[region]), 4),
            "CCC_with_the_noisy_map": round(concordance(n.ravel()[term.voxels], term.values), 4),
        }
    return {
        "voxels": shape,
        "dofs": int(setting.simulation.figures["dofs"]),
        "cell_size": cell_size,
        "cpu_seconds_calibration": round(seconds, 1),
        "cpu_seconds_steps": round(prepared, 1),
        "counts": counts,
        "cpu_seconds_forward": round(forward, 3),
        "gradient_over_forward": round(ratio, 2),
        "forward_equivalents_per_unknown": round(equivalents / len(priors), 1),
        "percent_off": _percent_off(found, truth),
        "held_out": held_out,
        "percent_off_from_three_visits": _percent_off(earlier, truth),
        "intervals_from_three_visits": {name: str(interval) for name, interval in posterior.intervals().items()},
    }


def _ratio(problem: Problem, x: np.ndarray) -> tuple[float, float]:
    """Return CPU of value and gradient over that of the frozen forward run, and that of the run, medians of three."""
    seconds: dict[str, list[float]] = {"forward": [], "gradient": []}
    for _ in range(3):
        for name, job in (("forward", problem.densities), ("gradient", problem.objective)):
            start = time.process_time()
            job(x)
            seconds[name].append(time.process_time() - start)
    forward, gradient = (float(np.median(found)) for found in seconds.values())
    return gradient / forward, forward


def _note(what: str, told: object) -> None:
    print(what, json.dumps(told), file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--section", choices=("recovery", "coverage", "start", "brain", "separable", "demo"))
    parser.add_argument("--twins", type=int, default=None)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--data", nargs="+", choices=("segmentations", "ADC"), default=("segmentations", "ADC"))
    options = parser.parse_args()
    sections = {
        "recovery": recovery,
        "coverage": lambda: coverage(options.first, options.twins or 40, options.data),
        "start": lambda: start(options.first, options.twins or 20),
        "brain": lambda: brain(options.first, options.twins or 3),
        "separable": lambda: separable(options.first, options.twins or 20),
        "demo": demo,
    }
    chosen = sections if options.section is None else {options.section: sections[options.section]}
    print(json.dumps({name: section() for name, section in chosen.items()}, indent=1))
