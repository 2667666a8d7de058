"""What the images of a patient cost, and a sample of each student against one of its teacher.

`python tests/benchmarks/refine_cost.py [PATIENT] [--data DIR] [--weights FILE] [--student FILE]...` prints one JSON
object. PATIENT is `mni152`, a folder, or a case of `DIR/test/patients`; the first of them when there is a DIR
(HYBRIDTUMOR_DATA by default), else `mni152`. The patient and its forecasts, untreated and under 60 Gy with
temozolomide, are made and kept by a process of their own. Every figure comes from a fresh process that reads them:

    one_day, three_days    the treated patient with default settings: seconds of baseline preparation, of sampling and
                           of the rest (render, composition), and peak memory, before any of it and at the end
    sample                 one sample of one day, untreated and treated (the source term costs a good deal of it):
                           teacher and students take turns after one uncounted turn each; ratios are of neighbours in
                           time, the teacher's seconds over the student's

Wall seconds beside CPU seconds, which other processes disturb least; those of `sample` are CPU seconds on one thread.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from hybridtumor.forecast import Forecast
from hybridtumor.patient import Patient
from hybridtumor.therapy import UNTREATED, Chemotherapy, DoseMap, Fractionation, TherapyPlan

DAYS = {"one_day": (120,), "three_days": (60, 120, 180)}
FIELDS = ("density", "damaged", "log_kill")


def make(reference: str, kept: Path) -> dict[str, Any]:
    """Keep patient, dose and forecasts."""
    import hybridtumor as ht

    patient = ht.load_patient(reference)
    dose = ht.conformal_dose(patient, "60 Gy")
    days = (0, *DAYS["three_days"])
    patient.save(kept / "patient")
    np.save(kept / "dose.npy", dose.values)
    for arm, plan in {"untreated": UNTREATED, "treated": plan_of(patient, dose.values)}.items():
        forecast = ht.simulate(patient, plan=plan, days=days)
        fields = {name: np.stack(values) for name in FIELDS if (values := getattr(forecast, name)) is not None}
        np.savez(kept / f"{arm}.npz", days=forecast.days, curve=forecast.burden_curve, **fields)
    return {"patient": patient.id, "grid": patient.grid.shape, "modalities": len(patient.baseline.scans)}


def plan_of(patient: Patient, dose: np.ndarray) -> TherapyPlan:
    return TherapyPlan.of(
        Fractionation(DoseMap(dose, patient.grid), 30, first_day=14), Chemotherapy.temozolomide(first_day=14)
    )


def read(kept: Path) -> tuple[Forecast, Patient, TherapyPlan, Forecast]:
    """What `Refiner.refine` takes: forecast, patient, plan, untreated forecast."""
    patient = Patient.load(kept / "patient")
    arms = []
    for arm in ("treated", "untreated"):
        with np.load(kept / f"{arm}.npz", allow_pickle=False) as file:
            fields = {name: tuple(file[name]) for name in FIELDS if name in file}
            arms.append(Forecast(patient.grid, tuple(file["days"].tolist()), burden_curve=file["curve"], **fields))
    return arms[0], patient, plan_of(patient, np.load(kept / "dose.npy")), arms[1]


class Stopwatch:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def read(self) -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()]) - self.began


@contextmanager
def listening(sample: Callable[..., np.ndarray]) -> Iterator[None]:
    """Put `sample` in the place of the refiner's way to draw."""
    from hybridtumor.refine import Refiner

    with mock.patch.object(Refiner, "sample", sample):
        yield


def whole(kept: Path, weights: str | None, days: str) -> dict[str, Any]:
    """Cost of a refined patient with default settings."""
    from hybridtumor.refine import Refiner

    refiner, (forecast, patient, plan, untreated) = Refiner.load(weights), read(kept)
    draw, spent, before = Refiner.sample, np.zeros(2), peak()

    def timed(self: Refiner, *rest: Any) -> np.ndarray:
        watch = Stopwatch()
        drawn = draw(self, *rest)
        np.add(spent, watch.read(), out=spent)
        return drawn

    watch = Stopwatch()
    refiner.baseline(patient)
    prepared = watch.read()
    with listening(timed):
        for _ in refiner.visits(forecast, patient, plan, untreated=untreated, days=DAYS[days]):
            pass
    total = watch.read()
    stages = {"baseline": prepared, "sampling": spent, "rest": total - prepared - spent, "all": total}
    return {
        "days": DAYS[days],
        **{name: {"wall_s": rounded(value[0]), "cpu_s": rounded(value[1])} for name, value in stages.items()},
        "peak_MiB": {"before": before, "end": peak()},
    }


def samples(kept: Path, weights: str | None, students: list[str], repeats: int) -> dict[str, Any]:
    """Cost of a sample of the teacher and of every student."""
    import torch

    from hybridtumor.models.conditioning import IMAGE_CHANNELS
    from hybridtumor.refine import Refiner
    from hybridtumor.refiner_scene import Scene
    from hybridtumor.solvers.place_noise import PlaceNoise
    from hybridtumor.students import stage_of

    torch.set_num_threads(1)
    teacher, scenes = Refiner.load(weights), []
    refiners = {"teacher": teacher}
    for path in students:
        student = Refiner.load(path)
        refiners[stage_of(student.weights)] = student
    forecast, patient, plan, untreated = read(kept)
    arms = {"untreated": (untreated, patient), "treated": (forecast, patient, plan)}

    def kept_scene(_: Refiner, scene: Scene, *_rest: Any) -> np.ndarray:
        scenes.append(scene)
        return np.zeros((1, IMAGE_CHANNELS, *scene.box.extent), np.float32)

    with listening(kept_scene):
        for arm in arms.values():
            teacher.refine(*arm, untreated=untreated, samples=1, days=DAYS["one_day"])
    return {"repeats": repeats} | {
        arm: in_turns(
            refiners,
            lambda refiner, scene=scene: refiner.sample(scene, [PlaceNoise(0, 0, IMAGE_CHANNELS, scene.box)]),
            repeats,
        )
        | {"box": scene.box.extent}
        for arm, scene in zip(arms, scenes, strict=True)
    }


def in_turns(refiners: dict[str, Any], draw: Callable[[Any], object], repeats: int) -> dict[str, Any]:
    """CPU seconds of every refiner, the teacher first, and the teacher's over those of the others."""
    seconds: dict[str, list[float]] = {name: [] for name in refiners}
    for repeat in range(repeats + 1):
        for name, refiner in refiners.items():
            watch = Stopwatch()
            draw(refiner)
            if repeat > 0:
                seconds[name].append(float(watch.read()[1]))
    found: dict[str, Any] = {}
    for name, refiner in refiners.items():
        found[name] = {"levels": refiner.steps, "cpu_s": spread(seconds[name])}
        if name != "teacher":
            ratios = [t / s for t, s in zip(seconds["teacher"], seconds[name], strict=True)]
            found[name]["teacher_over_student"] = spread(ratios)
    return found


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def rounded(value: float) -> float:
    return float(f"{value:.3g}")


def spread(values: list[float]) -> dict[str, float]:
    found = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {name: rounded(value) for name, value in found.items()}


STAGES: dict[str, Callable[..., dict[str, Any]]] = {"make": make, "whole": whole, "samples": samples}


def fresh(stage: str, kept: Path, threads: int, **arguments: Any) -> dict[str, Any]:
    """Run a stage in a process of its own, whose peak memory is that of nothing else."""
    out = kept / "figures.json"
    command = [sys.executable, __file__, "--stage", stage, json.dumps(arguments), str(kept)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def main(
    reference: str, weights: str | None, students: list[str], threads: int = 1, repeats: int = 3
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        result = {"threads": threads, **fresh("make", kept, threads, reference=reference)}
        for days in DAYS:
            result[days] = fresh("whole", kept, threads, weights=weights, days=days)
        one, three = (result[days]["all"]["cpu_s"] for days in DAYS)
        result["three_days_over_one"] = rounded(three / one)
        result["sample"] = fresh("samples", kept, threads, weights=weights, students=students, repeats=repeats)
    return result


def reference_of(patient: str | None, data: Path | None) -> str:
    cases = sorted(p for p in (data / "test" / "patients").glob("*") if p.is_dir()) if data is not None else []
    named = [str(case) for case in cases if patient in (None, case.name)]
    return named[0] if named else patient or "mni152"


if __name__ == "__main__":
    if "--stage" in sys.argv:
        stage, arguments, kept = sys.argv[2:]
        found = STAGES[stage](kept=Path(kept), **json.loads(arguments))
        (Path(kept) / "figures.json").write_text(json.dumps(found))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("patient", nargs="?")
        parser.add_argument("--data", type=Path, default=os.environ.get("HYBRIDTUMOR_DATA"))
        parser.add_argument("--weights")
        parser.add_argument("--student", action="append", default=[], help="weights of a student; repeatable")
        parser.add_argument("--threads", type=int, default=1)
        parser.add_argument("--repeats", type=int, default=3)
        options = parser.parse_args()
        case = reference_of(options.patient, options.data)
        print(json.dumps(main(case, options.weights, options.student, options.threads, options.repeats), indent=1))
