"""A scenario whose biology is a patient's own: the estimate of a calibration in place of stated parameters.

    scenario + calibration.json (+ its density of day 0) → scenario, patient, thresholds

The calibration wins: whoever names one wants it used, and scenario files usually state the population's values. What
the scenario states otherwise is said in the run's warnings; what the calibration does not know stays as stated.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hybridtumor.calibration_file import FILE_NAME, UNITS, Calibration, file_of
from hybridtumor.errors import InputError
from hybridtumor.manifest import hash_of
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import Patient
from hybridtumor.scan import Scan
from hybridtumor.scenario import Scenario


@dataclass(frozen=True)
class CalibrationSource:
    """A calibration and the file it comes from.

    Parameters
    ----------
    file
        The file.
    content
        What it says.
    """

    file: Path
    content: Calibration

    @classmethod
    def load(cls, path: Path | str) -> "CalibrationSource":
        """Read a calibration, given as its file or its folder; errors as `Calibration.load`."""
        file = file_of(path)
        content = Calibration.load(file)
        if not UNITS.keys() & (content.estimate.keys() | content.fixed.keys()):
            raise InputError(
                f"{file}: expected at least one parameter of {', '.join(UNITS)}, found none to simulate with."
            )
        source = cls(file, content)
        if source._density is not None and not source._density.is_file():
            raise InputError(f"{source._density}: expected the density that {file.name} names, found none.")
        return source

    @property
    def _density(self) -> Path | None:
        return None if self.content.density is None else self.file.parent / self.content.density

    @property
    def inputs(self) -> dict[str, str]:
        """Name to SHA-256 of the files."""
        named = {"calibration": self.file, "calibration, density": self._density}
        return {name: hash_of(path) for name, path in named.items() if path is not None}

    def applied(self, scenario: Scenario) -> Scenario:
        """Return the scenario with the estimate put in."""
        growth, response = self.content.growth(scenario.growth), self.content.response(scenario.response)
        return scenario.model_copy(update={"growth": growth, "response": response})

    def of(self, patient: Patient) -> Patient:
        """Return the patient with the density of day 0 that belongs to the estimate.

        Raises
        ------
        InputError
            The density lies on another grid.
        """
        if self._density is None:
            return patient
        density = Scan.load(self._density)
        patient.grid.require_same(density.grid, f"{self._density.name} of the calibration")
        return replace(patient, density=density)

    def notes(self, scenario: Scenario, patient: Patient) -> list[str]:
        """Return what whoever reads the results has to know; `scenario` is as it was stated."""
        after, notes = self.applied(scenario), []
        pairs = (("growth", scenario.growth, after.growth), ("response", scenario.response, after.response))
        for section, stated, used in pairs:
            for name, old, new in _changed(stated, used):
                notes.append(f"{section}.{name}: the scenario states {old}, the calibration's {new} is used.")
        if self._density is not None:
            notes.append("The density of day 0 is that of the calibration's fit.")
        if self.content.patient != patient.id:
            notes.append(
                f"The calibration is of patient {self.content.patient}, this patient is {patient.id}."
                " Make sure that they are the same person."
            )
        return notes

    def told(self, scenario: Scenario, patient: Patient) -> dict[str, Any]:
        """Return what ``summary.json`` says of the calibration; `scenario` is as it was stated."""
        parameters = {p.name: p.model_dump(include={"unit", "estimate", "interval"}) for p in self.content.parameters}
        return {
            "patient": self.content.patient,
            "parameters": parameters,
            "fixed": self.content.fixed,
            "notes": self.notes(scenario, patient),
        }

    def copy_to(self, folder: Path) -> None:
        """Write the calibration into a run folder, whose patient holds the density."""
        self.content.model_copy(update={"density": None}).save(folder / FILE_NAME)


def thresholds_of(folder: Path) -> ImagingThresholds:
    """Return the imaging thresholds of a run folder: those of the calibration it was made with, else the defaults."""
    file = folder / FILE_NAME
    return Calibration.load(file).thresholds() if file.exists() else ImagingThresholds()


def _changed(stated: BaseModel, used: BaseModel) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, stated and used value, with units, of what was stated and is not used."""
    before, after = stated.model_dump(mode="json"), used.model_dump(mode="json")
    for name in sorted(stated.model_fields_set):
        old, new = getattr(stated, name), getattr(used, name)
        if isinstance(new, float) and not math.isclose(old, new, rel_tol=1e-6):
            yield name, before[name], f"{new:.4g} {str(after[name]).partition(' ')[2]}"
