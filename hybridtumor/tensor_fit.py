r"""Tensors of water diffusion from diffusion-weighted images, fitted by dipy.

    ln S(b, g) = ln S₀ − b g·T g

with the b-value b (s/mm²) and the direction g of every volume, by weighted least squares (Basser, Mattiello & LeBihan,
J. Magn. Reson. B 1994). Directions are given in FSL's axes and are turned into the world before the fit.
"""

import importlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hybridtumor.diffusion_tensor import COMPONENTS, DiffusionTensor, read_series, rotation
from hybridtumor.errors import InputError, ResourceError
from hybridtumor.grid import Grid
from hybridtumor.scan import Scan

Array = NDArray[np.float64]

B0 = 50.0
"""Volumes with a b-value up to this, s/mm², count as unweighted."""


def fit_tensor(dwi: Path | str, bval: Path | str, bvec: Path | str, mask: Path | str | None = None) -> DiffusionTensor:
    """Fit tensors to diffusion-weighted images by weighted least squares (dipy).

    Parameters
    ----------
    dwi
        NIfTI, (x, y, z, n), corrected for motion and eddy currents.
    bval, bvec
        Text files: n b-values (s/mm²) and n directions, 3×n or n×3, in FSL's axes.
    mask
        NIfTI on the grid of `dwi`; voxels above 0 are fitted. None: wherever the unweighted images are above 0.

    Raises
    ------
    InputError
        Files that cannot be read or do not fit together, fewer than six directions or no unweighted image.
    ResourceError
        dipy is not installed.
    """
    try:
        gradients, reconstruct = (importlib.import_module(f"dipy.{n}") for n in ("core.gradients", "reconst.dti"))
    except ImportError as error:
        raise ResourceError(
            "diffusion tensor: expected dipy to fit diffusion-weighted images, it is not installed."
            " Run pip install 'hybridtumor[dti]'."
        ) from error
    image, values = read_series(Path(dwi))
    grid = Grid(tuple(image.shape[:3]), image.affine)
    weighting, directions = _gradient_table(Path(bval), Path(bvec), values.shape[3] if values.ndim == 4 else 1)
    inside = values[..., weighting <= B0].mean(-1) > 0
    if mask is not None:
        chosen = Scan.load(mask)
        grid.require_same(chosen.grid, str(mask))
        inside &= chosen.values > 0
    table = gradients.gradient_table(weighting, bvecs=directions @ rotation(grid, "fsl").T, b0_threshold=B0)
    tensors = np.zeros((*grid.shape, 3, 3))
    if inside.any():
        tensors[inside] = reconstruct.TensorModel(table, fit_method="WLS").fit(values[inside]).quadratic_form
    return DiffusionTensor(tensors, grid)


def _gradient_table(bval: Path, bvec: Path, count: int) -> tuple[Array, Array]:
    """Read b-values, (n,), and unit directions, (n, 3), 0 where the image is unweighted."""
    tables = []
    for path in (bval, bvec):
        try:
            tables.append(np.atleast_2d(np.loadtxt(path)))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: expected a table of numbers ({error}).") from error
    weighting, directions = tables[0].ravel(), tables[1] if tables[1].shape[1] == 3 else tables[1].T
    if tables[1].shape == (3, 3):
        directions = tables[1].T
    if weighting.shape != (count,) or directions.shape != (count, 3):
        raise InputError(
            f"{bvec}: expected {count} b-values and directions, one for each volume, got {weighting.size}"
            f" and {directions.shape}."
        )
    weighted = ~(weighting <= B0)
    directions = np.where(weighted[:, None], directions, 0.0)  # some programs write NaN for no direction
    length = np.linalg.norm(directions, axis=1)
    if not np.isfinite(weighting).all() or not (np.abs(length[weighted] - 1) <= 0.05).all():
        raise InputError(f"{bvec}: expected directions of length 1 and finite b-values. Export the table again.")
    directions = np.where(weighted[:, None], directions / np.where(weighted, length, 1)[:, None], 0.0)
    products = np.stack([directions[weighted, i] * directions[weighted, j] for i, j in COMPONENTS], -1)
    if weighted.all() or np.linalg.matrix_rank(products, tol=1e-3) < 6:
        raise InputError(
            f"{bvec}: expected an unweighted image (b ≤ {B0:g}) and six directions that tell a tensor, got"
            f" {(~weighted).sum()} and {weighted.sum()}."
        )
    return weighting, directions
