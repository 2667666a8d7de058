"""A small virtual patient, a scenario for it, and a stand-in for the image layer: a whole run in seconds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ball_brain import ball_density, ball_grid, ball_tissue

from hybridtumor import run_images, scene
from hybridtumor.errors import ResourceError
from hybridtumor.follow_up import FollowUpVisit
from hybridtumor.grid import Grid
from hybridtumor.patient import Patient, Visit
from hybridtumor.scan import LABEL_CONVENTIONS, MODALITIES, LabelMap, Scan
from hybridtumor.scenario import Scenario

COARSE = "4 mm"


def small_patient(identity: str = "small", turn: np.ndarray | None = None) -> Patient:
    """A patient who shows a tumour in four modalities; `turn` rotates the scanner around the world's origin."""
    grid = ball_grid()
    if turn is not None:
        oblique = np.eye(4)
        oblique[:3, :3] = turn
        grid = Grid(grid.shape, oblique @ grid.affine)
    tissue = ball_tissue(grid)
    density = ball_density(grid, tissue, radius=6.0)
    base = 300 * tissue.white + 200 * tissue.grey + 100 * tissue.csf
    tint = {"T1w": -50, "T1ce": 150, "T2w": 120, "FLAIR": 140}
    scans = {name: Scan(base + tint[name] * density.values, grid) for name in MODALITIES}
    return Patient(identity, (Visit(0, scans),), tissue, density, synthetic=True)


def small_scenario(patient: Path, **changes: Any) -> Scenario:
    """Three arms over forty days on a saved patient; `stupp` gives 60 Gy, `nothing` a prescription of 0 Gy."""
    content: dict[str, Any] = {
        "schema_version": 1,
        "patient": str(patient.resolve()),
        "horizon": "40 days",
        "report_days": [0, 20, 40],
        "arms": {
            "untreated": [],
            "stupp": [radiation("60 Gy", 30), {"chemotherapy": {"drug": "temozolomide", "first_day": 5}}],
            "nothing": [radiation("0 Gy", 30)],
        },
        "refine": {"samples": 2, "seed": 3},
    }
    return Scenario.parse(content | changes)


def radiation(prescription: str, fractions: int) -> dict[str, Any]:
    """One course, as a scenario file states it."""
    return {
        "radiation": {
            "prescription": prescription,
            "fractions": fractions,
            "first_day": 5,
            "target": "estro-eano-2023",
        }
    }


class StandInRefiner:
    """Makes images of density and seed alone: as quick as it is wrong. Samples differ where the density has changed."""

    calls = 0

    @classmethod
    def load(cls) -> "StandInRefiner":
        return cls()

    def visits(
        self, forecast: Any, patient: Patient, plan: Any, *, untreated: Any, samples: int, seed: int, progress: Any
    ) -> Iterator[FollowUpVisit]:
        del plan, untreated
        for number, day in enumerate(forecast.days):
            StandInRefiner.calls += 1
            change = forecast.at(day)[0] - forecast.at(0)[0]
            noise = 5 * np.random.default_rng(seed).normal(size=(samples, *patient.grid.shape)) * (change != 0)
            ensembles = {
                name: (scan.values + 100 * change + noise).astype(np.float32)
                for name, scan in patient.baseline.scans.items()
            }
            outside = change == 0
            images, mean, std = {}, {}, {}
            for name, ensemble in ensembles.items():
                own = patient.baseline.scans[name].values
                images[name] = ensemble[0]
                mean[name] = np.where(outside, own, ensemble.mean(axis=0)).astype(np.float32)
                std[name] = np.where(outside, 0, ensemble.std(axis=0)).astype(np.float32)
            codes = LABEL_CONVENTIONS["brats2021"]
            labels = LabelMap((forecast.at(day)[0] > 0.6).astype(np.uint8) * codes["enhancing"], patient.grid)
            progress(number, len(forecast.days))
            yield FollowUpVisit(day, images, mean, std, labels, (change != 0).astype(np.float32))


def quick(patch: pytest.MonkeyPatch) -> None:
    """Put the stand-in in place of the image layer, and let the machine be one that cannot draw in 3-D."""

    def no_opengl(*_: object) -> None:
        raise ResourceError("expected OpenGL, found none.")

    patch.setattr(run_images, "Refiner", StandInRefiner)
    patch.setattr(scene, "picture", no_opengl)
