"""A calibration for the small patient: three parameters, two of them correlated, and one that no forecast reads."""

from typing import Any

from hybridtumor.calibration_file import UNITS, CalibratedParameter, Calibration

ESTIMATES = {"diffusion_white": 0.21, "proliferation": 0.04, "alpha": 0.05}

COVARIANCE = ((0.04, -0.015, 0.0, 0.01), (-0.015, 0.0225, 0.0, 0.0), (0.0, 0.0, 0.09, 0.0), (0.01, 0.0, 0.0, 4.0))


def small_calibration(**changes: Any) -> Calibration:
    """The calibration; `changes` are of its fields."""
    parameters = [
        CalibratedParameter(
            name=name,
            unit=UNITS[name],
            scale="log",
            estimate=value,
            interval=(value / 1.5, value * 1.5),
            bounds=(value / 50, value * 50),
        )
        for name, value in ESTIMATES.items()
    ]
    where = {"name": "seed_x_mm", "unit": "mm", "scale": "linear", "estimate": 12.0}
    parameters.append(CalibratedParameter(**where, interval=(8.0, 16.0), bounds=(-50.0, 50.0)))
    content: dict[str, Any] = {
        "patient": "small",
        "parameters": tuple(parameters),
        "covariance": COVARIANCE,
        "fixed": {"grey_ratio": 0.2},
    }
    return Calibration(**content | changes)


ZERO = tuple((0.0,) * 4 for _ in range(4))
"""The covariance of somebody who is certain."""
