"""Forecast how a brain tumour will look on MRI if a given dose is delivered.

The public names are loaded when they are first used, so that importing the package costs neither torch nor DOLFINx.
Research use only: not a medical device.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hybridtumor.compare import compare
    from hybridtumor.errors import ConvergenceError, HybridTumorError, InputError, ResourceError
    from hybridtumor.forecast import Forecast
    from hybridtumor.grid import Grid
    from hybridtumor.parameters import GrowthParameters, ImagingThresholds, TreatmentResponse
    from hybridtumor.patient import Patient, Visit
    from hybridtumor.planned_dose import conformal_dose
    from hybridtumor.prepare import load_patient
    from hybridtumor.refine import Refiner
    from hybridtumor.report import report
    from hybridtumor.scan import LabelMap, Scan
    from hybridtumor.scenario import Scenario
    from hybridtumor.simulate import simulate
    from hybridtumor.therapy import Chemotherapy, DoseMap, Fractionation, Resection, TherapyPlan
    from hybridtumor.tissue import TissueMap

__version__ = "0.1.0"

_HOME = {
    "compare": ("compare",),
    "errors": ("ConvergenceError", "HybridTumorError", "InputError", "ResourceError"),
    "forecast": ("Forecast",),
    "grid": ("Grid",),
    "parameters": ("GrowthParameters", "ImagingThresholds", "TreatmentResponse"),
    "patient": ("Patient", "Visit"),
    "planned_dose": ("conformal_dose",),
    "prepare": ("load_patient",),
    "refine": ("Refiner",),
    "report": ("report",),
    "scan": ("LabelMap", "Scan"),
    "scenario": ("Scenario",),
    "simulate": ("simulate",),
    "therapy": ("Chemotherapy", "DoseMap", "Fractionation", "Resection", "TherapyPlan"),
    "tissue": ("TissueMap",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Chemotherapy", "ConvergenceError", "DoseMap", "Forecast", "Fractionation", "Grid", "GrowthParameters",
    "HybridTumorError", "ImagingThresholds", "InputError", "LabelMap", "Patient", "Refiner", "Resection",
    "ResourceError", "Scan", "Scenario", "TherapyPlan", "TissueMap", "TreatmentResponse", "Visit", "compare",
    "conformal_dose", "load_patient", "report", "simulate",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'hybridtumor' has no attribute {name!r}")
    return getattr(import_module(f"hybridtumor.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Facade(ModuleType):
    """The package, whose public functions keep their names although modules are called like them (simulate, report).

    Python binds a submodule to its package when it is first imported; here the function of the same name wins,
    whichever comes first. Modules are imported from their path (``from hybridtumor.simulate import …``), which needs no
    such binding.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _MODULE_OF):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Facade
