"""The image layer over a run folder: follow-up scans of every arm and report day, written as they come."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from hybridtumor.calibrated import thresholds_of
from hybridtumor.errors import InputError
from hybridtumor.follow_up import FollowUpVisit, Statistic
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import Patient
from hybridtumor.refine import Refiner
from hybridtumor.run_lock import run_lock
from hybridtumor.run_report import write_report
from hybridtumor.rundir import RunFolder
from hybridtumor.scan import LABELS, Scan, write_bytes
from hybridtumor.scenario import RefineOptions
from hybridtumor.yaml_file import load_yaml

Progress = Callable[[str, float], None]


def add_images(folder: RunFolder, patient: Patient, *, progress: Progress | None = None) -> None:
    """Generate the images of every arm that has none yet, and bring ``summary.json`` up to date.

    Parameters
    ----------
    folder
        A run whose arms are simulated; its scenario states samples and seed, the same for every arm.
    patient
        Its prepared patient.
    progress
        Told how far each arm is.

    Raises
    ------
    InputError
        The run has no untreated arm to compare with.
    ResourceError
        The weights are missing.
    """
    tell = progress or (lambda _stage, _share: None)
    todo = [arm for arm in folder.arms() if not folder.finished(f"refine {arm}")]
    if todo:
        samples, seed = folder.manifest.samples, folder.manifest.seeds["refine"]
        plans = {arm: folder.load_plan(arm, patient.grid).active for arm in folder.arms()}
        reference = next((arm for arm, plan in plans.items() if plan.gives_nothing), None)
        if reference is None:
            raise InputError(f"{folder.root}: expected an arm without treatment to compare with, found none.")
        tell(f"refine {todo[0]}", 0.0)
        refiner, thresholds = Refiner.load(), thresholds_of(folder.root)
        if thresholds != ImagingThresholds():
            refiner = replace(refiner, thresholds=thresholds)
        untreated = folder.load_forecast(reference, patient.grid)
        for arm in todo:
            stage = f"refine {arm}"
            with folder.stage(stage):
                forecast = untreated if arm == reference else folder.load_forecast(arm, patient.grid)
                done = _share(tell, stage)
                visits = refiner.visits(
                    forecast, patient, plans[arm], untreated=untreated, samples=samples, seed=seed, progress=done
                )
                figures = [_save_visit(folder, arm, visit, patient) for visit in visits]
                folder.save_image_figures(arm, _by_quantity(figures) | {"samples": samples, "seed": seed})
            tell(stage, 1.0)
    folder.save_summary(folder.summarise())


def require_weights() -> None:
    """Raise ResourceError when the weights are missing or damaged."""
    Refiner.load()


def refine_run(
    run: Path | str, *, samples: int | None = None, seed: int | None = None, progress: Progress | None = None
) -> RunFolder:
    """Generate the images of a simulated run, anew if there are any, and its report.

    Parameters
    ----------
    run
        Run folder; nothing outside it is needed.
    samples, seed
        Size of the ensemble and seed of its noise; None: as the run's scenario says.

    Raises
    ------
    InputError
        The folder is not that of a simulated run, or another process writes it.
    ResourceError
        The weights are missing.
    """
    folder = RunFolder.open(run)
    if not folder.arms():
        raise InputError(
            f"{folder.root}: expected a simulated run, found no finished arm."
            " Run `hybridtumor simulate` or `compare` first."
        )
    manifest = folder.manifest
    samples, seed = (
        (manifest.samples if samples is None else samples),
        (manifest.seeds["refine"] if seed is None else seed),
    )
    try:
        RefineOptions(samples=samples, seed=seed)
    except ValidationError as error:
        raise InputError(
            f"refine: expected 1 to 256 samples and a seed from 0 to 2³¹ − 1, got {samples} samples, seed {seed}."
        ) from error
    with run_lock(folder.root):
        _forget_images(folder, samples, seed)
        patient = folder.load_patient()
        add_images(folder, patient, progress=progress)
        write_report(folder, patient, progress=None if progress is None else partial(progress, "report"))
    return folder


def _forget_images(folder: RunFolder, samples: int, seed: int) -> None:
    """Take the images of an earlier call out of the record first, then off the disk."""
    for arm in folder.arms():
        folder.manifest.stages.pop(f"refine {arm}", None)
    folder.manifest.samples, folder.manifest.seeds["refine"] = samples, seed
    folder.save_manifest()
    content = load_yaml(folder.scenario_path)
    if isinstance(content, dict):
        content["refine"] = {"samples": samples, "seed": seed}
        write_bytes(folder.scenario_path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
    for arm in folder.arms():
        shutil.rmtree(folder.arm_path(arm) / "mri", ignore_errors=True)
    folder.save_summary(folder.summarise())


def _share(tell: Progress, stage: str) -> Callable[[int, int], None]:
    return lambda done, count: tell(stage, 0.95 * done / max(count, 1))


def _save_visit(folder: RunFolder, arm: str, visit: FollowUpVisit, patient: Patient) -> dict[str, Any]:
    """Write the images of one day; returns their figures.

    A sample has the texture of a scan, a mean does not: the sample is what a reader is shown.
    """
    kinds: dict[Statistic, Mapping[str, NDArray[np.float32]]]
    kinds = {"sample": visit.images, "mean": visit.mean, "std": visit.std}
    for statistic, images in kinds.items():
        for modality, values in images.items():
            folder.save_scan(arm, modality, visit.day, Scan(values, patient.grid), statistic)
    folder.save_labels(arm, visit.day, visit.labels)
    voxel, inside = patient.grid.voxel_volume, visit.mask > 0
    volumes = {label: float(np.count_nonzero(visit.labels.mask(label))) * voxel for label in LABELS}
    spread = {modality: float(std[inside].mean()) if inside.any() else 0.0 for modality, std in visit.std.items()}
    moved = {} if visit.moved is None else {"moved_mm3": float(np.count_nonzero(visit.moved)) * voxel}
    return {
        "day": visit.day,
        "volume_mm3": volumes,
        "mean_std": spread,
        "writable_mm3": float(np.count_nonzero(inside)) * voxel,
        **moved,
    }


def _by_quantity(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Turn figures by day into figures by quantity, as ``summary.json`` holds them."""
    modalities = list(figures[0]["mean_std"]) if figures else []
    moved = [round(entry["moved_mm3"], 4) for entry in figures if "moved_mm3" in entry]
    return {
        "days": [entry["day"] for entry in figures],
        "volume_mm3": {label: [round(entry["volume_mm3"][label], 4) for entry in figures] for label in LABELS},
        "mean_std": {modality: [round(entry["mean_std"][modality], 4) for entry in figures] for modality in modalities},
        "writable_mm3": [round(entry["writable_mm3"], 4) for entry in figures],
        **({"moved_mm3": moved} if moved else {}),
    }
