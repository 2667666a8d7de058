"""The run folder: where every file of a run lies, and the promise that each is whole.

    RUN/
      manifest.json   what went in, what computed it, which stages are finished
      summary.json    the figures of every arm
      scenario.yaml   the normalised scenario
      calibration.json  the calibration whose estimate was simulated, if one was
      draws.csv  draws.json  the arms under draws of its posterior, if asked for: every one, and what they come to
      patient/        the prepared patient, so that nothing outside the folder is needed again
      plans/          NAME.json and its dose maps
      mesh.vtu        the mesh, with the density of every arm and report day
      arms/NAME/      density_dayNNN.nii.gz  log_kill_dayNNN.nii.gz  dose.nii.gz (if irradiated)  figures.json
                      damaged_dayNNN.nii.gz (if killed cells wait for clearance)
                      displacement_dayNNN.nii.gz (with mechanics)
      arms/NAME/mri/  dayNNN_{T1w,T1ce,T2w,FLAIR}.nii.gz  one sample: what a scan could look like
                      …_mean.nii.gz  …_std.nii.gz         mean and standard deviation over the ensemble
                      dayNNN_seg.nii.gz  figures.json     segmentation of the mean, figures
      pictures/*.png  report.html

Every file is written under a temporary name, flushed and renamed. What lies under ``arms/NAME`` depends on nothing but
the physics of that arm: no name, no date, so that an arm of 0 Gy equals the untreated one byte for byte.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor import plan_file
from hybridtumor.errors import InputError
from hybridtumor.follow_up import Statistic, told
from hybridtumor.forecast import Forecast
from hybridtumor.grid import Grid
from hybridtumor.manifest import Manifest
from hybridtumor.patient import Patient
from hybridtumor.run_lock import LOCK_NAME, run_lock
from hybridtumor.scan import SYNTHETIC_NOTICE, LabelMap, Scan, load_displacement, write_bytes, write_nifti
from hybridtumor.therapy import TherapyPlan

DRAWS = "draws.json"

FIELD_UNITS = {
    "density": "fraction of carrying capacity",
    "log_kill": "1 (natural logarithm, accumulated since day 0)",
    "damaged": "fraction of carrying capacity",
}

DISPLACEMENT_SIDECAR = {
    "quantity": "displacement: the tissue that was at a voxel's centre X on day 0 is at X + v(X) on this day",
    "unit": "mm",
    "frame": "RAS+, as the affine; ITK 5.4 and 3D Slicer 5.2 turn the vectors to LPS when they read them",
    "notice": SYNTHETIC_NOTICE,
}


def day_label(day: float) -> str:
    """Return ``day060`` for day 60, ``day060.50`` for day 60.5."""
    return f"day{int(day):03d}" if float(day).is_integer() else f"day{day:06.2f}"


@dataclass(frozen=True)
class RunFolder:
    """The layout of one run.

    Parameters
    ----------
    root
        The folder.
    manifest
        Its record of inputs and finished stages.
    """

    root: Path
    manifest: Manifest

    @classmethod
    def open(cls, root: Path | str) -> "RunFolder":
        """Open the folder of an earlier run.

        Raises
        ------
        InputError
            The folder is not that of a run.
        """
        root = Path(root)
        return cls(root, Manifest.load(root / "manifest.json"))

    @property
    def scenario_path(self) -> Path:
        """The normalised scenario."""
        return self.root / "scenario.yaml"

    @property
    def patient_path(self) -> Path:
        """The prepared patient."""
        return self.root / "patient"

    @property
    def mesh_path(self) -> Path:
        """The mesh and the densities on it."""
        return self.root / "mesh.vtu"

    @property
    def report_path(self) -> Path:
        """The report."""
        return self.root / "report.html"

    @property
    def pictures(self) -> Path:
        """Folder of the pictures."""
        return self.root / "pictures"

    def arm_path(self, arm: str) -> Path:
        """Folder of an arm."""
        return self.root / "arms" / arm

    def field_path(self, arm: str, field: str, day: float) -> Path:
        """Image of ``density``, ``log_kill`` or ``damaged`` of an arm on a day."""
        return self.arm_path(arm) / f"{field}_{day_label(day)}.nii.gz"

    def scan_path(self, arm: str, modality: str, day: float, statistic: Statistic = "sample") -> Path:
        """Follow-up image of an arm on a day: one sample, or the mean or standard deviation over the ensemble."""
        end = "" if statistic == "sample" else f"_{statistic}"
        return self.arm_path(arm) / "mri" / f"{day_label(day)}_{modality}{end}.nii.gz"

    def labels_path(self, arm: str, day: float) -> Path:
        """Segmentation of the follow-up image of an arm on a day."""
        return self.arm_path(arm) / "mri" / f"{day_label(day)}_seg.nii.gz"

    # --- stages

    @contextmanager
    def stage(self, name: str, *, before: float = 0.0, save: bool = True) -> Iterator[None]:
        """Do one stage: its wall time is recorded when it ends without an error. Under MPI only rank 0 saves.

        `before` is the time, in seconds, that the stage took before there was a folder.
        """
        start = monotonic() - before
        yield
        self.manifest.stages[name] = round(monotonic() - start, 3)
        if save:
            self.save_manifest()

    def finished(self, stage: str) -> bool:
        """Tell whether a stage has been finished."""
        return stage in self.manifest.stages

    def warn(self, message: str) -> None:
        """Record a warning in the manifest, once."""
        if message not in self.manifest.warnings:
            self.manifest.warnings.append(message)
            self.save_manifest()

    def save_manifest(self) -> None:
        """Write the manifest."""
        self.manifest.save(self.root / "manifest.json")

    # --- patient and plans

    def load_patient(self) -> Patient:
        """Read the prepared patient."""
        return Patient.load(self.patient_path)

    def save_plan(self, arm: str, plan: TherapyPlan) -> None:
        """Write the plan of an arm."""
        plan_file.save_plan(plan, self.root / "plans" / f"{arm}.json")

    def load_plan(self, arm: str, grid: Grid) -> TherapyPlan:
        """Read the plan of an arm."""
        return plan_file.load_plan(self.root / "plans" / f"{arm}.json", grid)

    # --- growth layer

    def save_forecast(self, arm: str, forecast: Forecast, plan: TherapyPlan, figures: dict[str, Any]) -> None:
        """Write the fields of an arm at the report days, its dose, and its figures (`hybridtumor.summary`)."""
        fields = {"density": forecast.density, "log_kill": forecast.log_kill, "damaged": forecast.damaged}
        for field, images in fields.items():
            for day, values in zip(forecast.days, images or (), strict=images is not None):
                sidecar = {"quantity": field, "unit": FIELD_UNITS[field], "day": day, "notice": SYNTHETIC_NOTICE}
                write_nifti(
                    self.field_path(arm, field, day),
                    values,
                    forecast.grid,
                    description=SYNTHETIC_NOTICE,
                    sidecar=sidecar,
                )
        if forecast.displacement is not None:
            for day, displacement in zip(forecast.days, forecast.displacement, strict=True):
                path, sidecar = self.field_path(arm, "displacement", day), {**DISPLACEMENT_SIDECAR, "day": day}
                write_nifti(
                    path, displacement.astype(np.float32), forecast.grid, description=SYNTHETIC_NOTICE, sidecar=sidecar
                )
        if plan.active.courses:
            write_nifti(
                self.arm_path(arm) / "dose.nii.gz",
                plan.active.total_dose(forecast.grid),
                forecast.grid,
                description=SYNTHETIC_NOTICE,
                sidecar={**plan_file.DOSE_SIDECAR, "quantity": "absorbed dose, total of all courses"},
            )
        write_bytes(self.arm_path(arm) / "figures.json", (json.dumps(figures, indent=1) + "\n").encode())

    def arms(self) -> tuple[str, ...]:
        """Return the names of the simulated arms, in the order of the scenario."""
        return tuple(stage.removeprefix("simulate ") for stage in self.manifest.stages if stage.startswith("simulate "))

    def figures(self, arm: str) -> dict[str, Any]:
        """Return the figures of a simulated arm."""
        return _read_json(self.arm_path(arm) / "figures.json", "the figures of a simulated arm")

    def image_figures(self, arm: str) -> dict[str, Any]:
        """Return the figures of the follow-up images of an arm; empty when there are none."""
        path = self.arm_path(arm) / "mri" / "figures.json"
        return _read_json(path, "the figures of follow-up images") if path.exists() else {}

    def load_field(self, arm: str, field: str, day: float) -> NDArray[np.float32]:
        """Read ``density``, ``log_kill`` or ``damaged`` of an arm on a report day."""
        return Scan.load(self.field_path(arm, field, day)).values

    def load_forecast(self, arm: str, grid: Grid) -> Forecast:
        """Read the forecast of an arm; its mesh stays in ``mesh.vtu``."""
        figures = self.figures(arm)
        days = tuple(float(day) for day in figures["days"])
        density, log_kill = (tuple(self.load_field(arm, name, day) for day in days) for name in ("density", "log_kill"))
        damaged = None
        if all(self.field_path(arm, "damaged", day).exists() for day in days):
            damaged = tuple(self.load_field(arm, "damaged", day) for day in days)
        curve = {name: np.asarray(values) for name, values in figures["burden_curve"].items()}
        time, burden, imaged = curve["days"], curve["burden_mm3"], curve.get("imaged_burden_mm3")
        return Forecast(
            grid,
            days,
            density,
            log_kill,
            np.column_stack([time, burden]),
            displacement=self._displacements(arm, days),
            damaged=damaged,
            damaged_curve=None if imaged is None else np.column_stack([time, imaged - burden]),
        )

    def load_displacement(self, arm: str, day: float) -> NDArray[np.float32] | None:
        """Read the displacement of an arm on a report day, (3, X, Y, Z), mm RAS+; None without mechanics."""
        path = self.field_path(arm, "displacement", day)
        return load_displacement(path)[0] if path.exists() else None

    def _displacements(self, arm: str, days: tuple[float, ...]) -> tuple[NDArray[np.float32], ...] | None:
        if not all(self.field_path(arm, "displacement", day).exists() for day in days):
            return None
        return tuple(load_displacement(self.field_path(arm, "displacement", day))[0] for day in days)

    def load_dose(self, arm: str) -> NDArray[np.float32] | None:
        """Read the total dose of an arm, Gy; None when no radiation is given."""
        path = self.arm_path(arm) / "dose.nii.gz"
        return Scan.load(path).values if path.exists() else None

    # --- image layer

    def save_scan(self, arm: str, modality: str, day: float, scan: Scan, statistic: Statistic = "sample") -> None:
        """Write a follow-up image: one sample, or the mean or standard deviation over the ensemble."""
        what = told(statistic, self.manifest.samples)
        sidecar = {"modality": modality, "day": day, "statistic": what, "notice": SYNTHETIC_NOTICE}
        path = self.scan_path(arm, modality, day, statistic)
        scan.save(path, description=f"{SYNTHETIC_NOTICE}; {what}", sidecar=sidecar)

    def save_labels(self, arm: str, day: float, labels: LabelMap) -> None:
        """Write the segmentation of a day: that of the mean over the ensemble."""
        what = told("mean", self.manifest.samples)
        sidecar = {"day": day, "segmentation_of": what, "notice": SYNTHETIC_NOTICE}
        labels.save(self.labels_path(arm, day), description=f"{SYNTHETIC_NOTICE}; of the {what}", sidecar=sidecar)

    def save_image_figures(self, arm: str, figures: dict[str, Any]) -> None:
        """Write the figures of the follow-up images of an arm."""
        write_bytes(self.arm_path(arm) / "mri" / "figures.json", (json.dumps(figures, indent=1) + "\n").encode())

    # --- figures

    def summarise(self) -> dict[str, Any]:
        """Collect what ``summary.json`` holds from what the arms have left."""
        summary = {
            "patient": self.manifest.patient,
            "horizon_days": self.manifest.horizon_days,
            "mesh": self.manifest.figures.get("mesh", {}),
            "arms": {name: self.figures(name) | {"mri": self.image_figures(name)} for name in self.arms()},
        }
        if "calibration" in self.manifest.figures:
            summary["calibration"] = self.manifest.figures["calibration"]
        if self.finished("draws"):
            summary["draws"] = _read_json(self.root / DRAWS, "the figures of draws")
        return summary

    def save_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``."""
        write_bytes(self.root / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())

    def load_summary(self) -> dict[str, Any]:
        """Read ``summary.json``.

        Raises
        ------
        InputError
            The run has none yet, or it is damaged.
        """
        return _read_json(self.root / "summary.json", "the summary of a run")


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected {what} ({error}). Go on with the run (--resume) first.") from error
    return content


def check_target(root: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that a new run may not write into, before anything is computed.

    Raises
    ------
    InputError
        The folder holds something and neither `resume` nor `overwrite` is given; it is a file; both are given; or
        `overwrite` would delete what is not a run.
    """
    if resume and overwrite:
        raise InputError("expected --resume or --overwrite, got both. Choose one.")
    if root.exists() and not root.is_dir():
        raise InputError(f"{root}: expected a folder for the run, found a file.")
    is_run = (root / "manifest.json").exists()
    if not root.is_dir() or all(entry.name == LOCK_NAME for entry in root.iterdir()) or (resume and is_run):
        return
    if not overwrite:
        hint = (
            "Add --resume to go on, --overwrite to start anew, or choose another folder."
            if is_run
            else "Choose another folder."
        )
        raise InputError(f"{root}: expected an empty or new folder for the run, found one that holds files. {hint}")
    if not is_run:
        raise InputError(
            f"{root}: expected a run folder to overwrite, found files that are no run. Choose another folder."
        )


@contextmanager
def opened(root: Path, manifest: Manifest, *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
    """Hold the run folder for writing: made, emptied or taken up again, and locked against a second process.

    Raises
    ------
    InputError
        See `check_target`; or the run to resume was made from another scenario, other inputs or another version.
    """
    check_target(root, resume=resume, overwrite=overwrite)
    root.mkdir(parents=True, exist_ok=True)
    with run_lock(root):
        if resume and (root / "manifest.json").exists():
            folder = RunFolder.open(root)
            _require_same_run(folder, manifest)
            for leftover in root.rglob(".*.tmp"):  # a file that a killed process had not finished
                leftover.unlink()
        else:
            for entry in root.iterdir():
                if entry.name != LOCK_NAME:
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            folder = RunFolder(root, manifest)
            folder.save_manifest()
        yield folder


def _require_same_run(folder: RunFolder, manifest: Manifest) -> None:
    """Refuse to mix two computations in one folder."""
    for name, what in (
        ("scenario_sha256", "scenario"),
        ("inputs", "input files"),
        ("seeds", "seeds"),
        ("samples", "samples"),
        ("hybridtumor", "version of hybridtumor"),
    ):
        if getattr(folder.manifest, name) != getattr(manifest, name):
            raise InputError(
                f"{folder.root}: expected the {what} this run was started with, got another."
                " Use --overwrite to start anew, or choose another folder."
            )
