"""Where DICOM planes lie, and the affine they make.

The centre of the pixel in column c and row r of a plane is at p + c·Δc·X + r·Δr·Y, with p ImagePositionPatient, X and
Y the two halves of ImageOrientationPatient, (Δr, Δc) PixelSpacing; x to the left, y to the back, z up, mm. Arrays are
(column, row, plane), so the affine to RAS+ is

    diag(−1, −1, 1) · [Δc·X, Δr·Y, s | p₀],    s the step from one plane to the next.

A step along the normal X × Y makes an ordinary grid, another one (a tilted gantry) a sheared one.
"""

import numpy as np
from numpy.typing import NDArray

from hybridtumor.errors import InputError

Vector = NDArray[np.float64]

TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""Turns LPS into RAS, and back."""

MAX_UNEVEN = 0.01
"""Share of the gap between planes by which one gap may differ from the others."""

MAX_DRIFT = 0.05
"""Share of the gap by which a plane may lie off the line through the first and the last."""

FARTHEST = 1e5
"""mm. Nothing of a patient is farther from the origin, or larger."""

ROUNDING = 0.011
"""mm. Positions are often written with two decimals."""


def plane_axes(orientation: Vector, label: str) -> tuple[Vector, Vector, Vector]:
    """Return unit vectors along columns (X), rows (Y) and the normal X × Y, LPS.

    Raises
    ------
    InputError
        The two directions are not perpendicular unit vectors within 0.1 %.
    """
    x, y = orientation[:3], orientation[3:]
    if np.abs([x @ x - 1, y @ y - 1, x @ y]).max() > 2e-3:
        raise InputError(f"{label}: expected ImageOrientationPatient of two perpendicular unit vectors, got others.")
    x = x / np.linalg.norm(x)
    y = y - (x @ y) * x
    y = y / np.linalg.norm(y)
    return x, y, np.cross(x, y)


def even_step(positions: Vector, normal: Vector, label: str) -> Vector:
    """Return the step between planes whose positions, (n, 3), are in order along the normal.

    Raises
    ------
    InputError
        Planes coincide, are missing, or are not evenly spaced along one line.
    """
    gaps = np.diff(positions @ normal)
    gap = float(gaps[np.argsort(np.abs(gaps))[(len(gaps) - 1) // 2]])  # lower median: a missing plane is no norm
    if np.abs(gaps).min() < 1e-3 or np.sign(gaps).min() != np.sign(gaps).max():
        twice = int((np.abs(gaps) < 1e-3).sum())
        raise InputError(
            f"{label}: expected one plane at each position, got {twice} positions twice or planes out of order. Several"
            " volumes in one series (echoes, time points) have to be separated first."
        )
    uneven = np.abs(gaps - gap) > max(MAX_UNEVEN * abs(gap), ROUNDING)
    if uneven.any():
        wide = float(np.abs(gaps).max())
        missing = round(wide / abs(gap)) - 1
        why = f"about {missing} missing at the widest gap" if missing >= 1 else "the gaps differ"
        raise InputError(
            f"{label}: expected evenly spaced planes, got gaps from {np.abs(gaps).min():.4g} to {wide:.4g} mm ({why})."
            " Export the series again with all its planes."
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    line = positions[0] + np.arange(len(positions))[:, None] * step
    if np.abs(positions - line).max() > max(MAX_DRIFT * abs(gap), ROUNDING):
        raise InputError(f"{label}: expected planes along one straight line, got planes shifted against each other.")
    return np.asarray(step, np.float64)


def affine_ras(
    position: Vector, x: Vector, y: Vector, spacing: Vector, step: Vector, label: str
) -> NDArray[np.float64]:
    """Return the (4, 4) affine to RAS+, mm, of an array (column, row, plane); spacing is (between rows, columns).

    Raises
    ------
    InputError
        A length beyond `FARTHEST`.
    """
    result = np.eye(4)
    result[:3, :3] = TO_RAS @ np.column_stack([x * spacing[1], y * spacing[0], step])
    result[:3, 3] = TO_RAS @ position
    if np.abs(result).max() > FARTHEST:
        raise InputError(f"{label}: expected positions and spacings up to {FARTHEST:g} mm, got larger ones.")
    return result


def check_spacing(spacing: Vector, label: str) -> Vector:
    """Return a spacing that is positive; InputError otherwise."""
    if not (spacing > 0).all():
        raise InputError(f"{label}: expected a positive spacing between pixels and planes, got one that is not.")
    return spacing
