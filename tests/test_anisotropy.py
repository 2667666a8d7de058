"""Tensors: what the water says, how it becomes a diffusivity, how it moves with the tissue, how files keep it."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from figures import Figure
from scipy.spatial.transform import Rotation

from hybridtumor.diffusion_tensor import DiffusionTensor, Order, symmetric, unit_mean
from hybridtumor.errors import InputError, ResourceError
from hybridtumor.grid import Grid
from hybridtumor.meshes.lattice import uniform_lattice
from hybridtumor.meshes.transfer import cell_means
from hybridtumor.models.anisotropy import pulled_back, sharpened, tissue_tensor
from hybridtumor.tensor_fit import fit_tensor

RNG = np.random.default_rng(0)
SHAPE = (5, 4, 3)


def tensors(count: int) -> np.ndarray:
    """Positive definite tensors with their frames turned every way, as of water in mm²/s."""
    frames = Rotation.random(count, rng=1).as_matrix()
    return frames * RNG.uniform(2e-4, 2e-3, (count, 1, 3)) @ frames.swapaxes(1, 2)


def oblique(*sizes: float) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [0.3, -0.5, 0.8]).as_matrix() * (sizes or (2.0, 1.5, 2.5))
    affine[:3, 3] = 5, -7, 11
    return affine


def fsl_axes(affine: np.ndarray) -> np.ndarray:
    """FSL's axes as columns: those of the array, but the first always so that all three are left-handed."""
    turn = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return np.asarray(turn * [-np.sign(np.linalg.det(turn)), 1, 1])


def test_a_unit_tensor_gives_the_scalar_diffusivity() -> None:
    white, grey = RNG.uniform(0, 0.5, (2, 20))
    for tensor in (np.zeros((20, 3, 3)), np.broadcast_to(7e-4 * np.eye(3), (20, 3, 3))):
        d = tissue_tensor(white, grey, (0.13, 0.013), tensor)
        np.testing.assert_allclose(d, (0.13 * white + 0.013 * grey)[:, None, None] * np.eye(3), rtol=1e-14, atol=0)


@pytest.mark.law("tensor", "The tensor has the tissue's mean diffusivity and the water's axes")
def test_the_mean_diffusivity_is_that_of_the_tissue_and_the_axes_are_those_of_the_water(figure: Figure) -> None:
    water, ones = tensors(20), np.ones(20)
    d = tissue_tensor(ones, 0 * ones, (0.13, 0.013), water)
    figure("error of the mean", np.abs(np.trace(d, axis1=1, axis2=2) / (3 * 0.13) - 1).max(), at_most=1e-14)
    np.testing.assert_allclose(d @ water, water @ d, atol=1e-18)


def test_sharpening() -> None:
    water = tensors(30)
    np.testing.assert_allclose(sharpened(water, 1), unit_mean(water), atol=1e-14)
    np.testing.assert_allclose(sharpened(np.eye(3), 10), np.eye(3), atol=1e-14)
    ratio = []
    for factor in (1, 2, 5, 10):
        sharp = sharpened(water, factor)
        np.testing.assert_allclose(np.trace(sharp, axis1=1, axis2=2), 3, rtol=1e-14)
        np.testing.assert_allclose(sharp @ water, water @ sharp, atol=1e-16)
        values = np.linalg.eigvalsh(sharp)
        assert (np.diff(values, axis=1) >= -1e-14).all()
        ratio.append(values[:, 2] / values[:, 0])
    assert (np.diff(ratio, axis=0) > 0).all()


def test_sharpening_follows_its_formula() -> None:
    """Eigenvalues 6, 3, 1, r = 10: c_l = 0.3, c_p = 0.4, c_s = 0.3, so 6·7.3, 3·4.6, 1."""
    values = np.linalg.eigvalsh(sharpened(np.diag([3.0, 6.0, 1.0]), 10))
    np.testing.assert_allclose(values / values[0], [1, 13.8, 43.8], rtol=1e-13)
    with pytest.raises(InputError, match="at least 1"):
        sharpened(np.eye(3), 0.5)


def test_pulling_back() -> None:
    scalar, d = RNG.uniform(0.1, 1, 10), tensors(10)
    nothing = np.broadcast_to(np.eye(3), (10, 3, 3))
    np.testing.assert_allclose(pulled_back(d, nothing), d, rtol=1e-14, atol=0)
    turned = Rotation.random(10, rng=2).as_matrix()
    np.testing.assert_allclose(pulled_back(scalar, turned), scalar[:, None, None] * np.eye(3), atol=1e-14)
    np.testing.assert_allclose(pulled_back(d, turned), turned.swapaxes(1, 2) @ d @ turned, atol=1e-16)
    stretch = np.broadcast_to(np.diag([2.0, 1.0, 1.0]), (10, 3, 3))
    expected = scalar[:, None, None] * np.diag([0.5, 2, 2])
    np.testing.assert_allclose(pulled_back(scalar, stretch), expected, rtol=1e-14)
    first, second = nothing + 0.2 * RNG.standard_normal((2, 10, 3, 3))
    twice = pulled_back(pulled_back(d, second), first)
    np.testing.assert_allclose(pulled_back(d, second @ first), twice, rtol=1e-10, atol=1e-15)
    assert np.linalg.eigvalsh(twice).min() > 0
    with pytest.raises(InputError, match="det F"):
        pulled_back(scalar, -nothing)


# --- files ---


def write(path: Path, values: np.ndarray, affine: np.ndarray, *, intent: str = "none") -> Path:
    image = nib.Nifti1Image(values.astype(np.float32), affine)
    image.header.set_intent(intent)
    nib.save(image, path)
    return path


def in_order(world: np.ndarray, frame: np.ndarray, order: Order) -> np.ndarray:
    """The file that a program would write of world tensors in the given frame, (x, y, z, 6)."""
    t = frame.T @ world @ frame
    names = {"fsl": "00 01 02 11 12 22", "mrtrix": "00 11 22 01 02 12", "nifti": "00 10 11 20 21 22"}[order]
    return np.stack([t[..., int(i), int(j)] for i, j in names.split()], -1)


@pytest.mark.law("tensor", "Files of one tensor in the orders and frames of FSL, MRtrix and NIfTI give the same tensor")
@pytest.mark.parametrize("handed", [1, -1])
def test_every_order_gives_the_same_tensor(tmp_path: Path, handed: int) -> None:
    world = tensors(60).reshape(*SHAPE, 3, 3)
    affine = oblique(2.0 * handed, 1.5, 2.5)
    turn, fsl = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0), fsl_axes(affine)
    path = tmp_path / "t.nii.gz"
    write(path, in_order(world, fsl, "fsl"), affine)
    loaded = [DiffusionTensor.load(path, order="fsl")]
    write(path, in_order(world, np.eye(3), "mrtrix"), affine)
    loaded.append(DiffusionTensor.load(path, order="mrtrix"))
    write(path, in_order(world, turn, "mrtrix"), affine)
    loaded.append(DiffusionTensor.load(path, order="mrtrix", axes="voxel"))
    write(path, in_order(world, turn, "nifti")[:, :, :, None], affine, intent="symmetric matrix")
    loaded.append(DiffusionTensor.load(path, axes="voxel"))
    for tensor in loaded:
        np.testing.assert_allclose(symmetric(np.moveaxis(tensor.values, -1, 0)), world, atol=2e-9)
        assert tensor.known.all()


def test_the_frame_of_a_file_matters(tmp_path: Path) -> None:
    path = write(tmp_path / "t.nii.gz", in_order(tensors(60).reshape(*SHAPE, 3, 3), np.eye(3), "fsl"), oblique())
    by_axes = [DiffusionTensor.load(path, order="fsl", axes=axes).values for axes in ("world", "voxel", "fsl")]
    assert np.abs(by_axes[0] - by_axes[1]).max() > 1e-4
    assert np.abs(by_axes[1] - by_axes[2]).max() > 1e-4


def test_doubtful_files_are_refused(tmp_path: Path) -> None:
    good = in_order(tensors(60).reshape(*SHAPE, 3, 3), np.eye(3), "fsl")
    path = tmp_path / "t.nii"

    def refused(match: str, values: np.ndarray, intent: str = "none", **how: str) -> None:
        write(path, values, oblique(), intent=intent)
        with pytest.raises(InputError, match=match):
            DiffusionTensor.load(path, **how)  # type: ignore[arg-type]

    refused("expected an order", good)
    refused("expected an order", good, order="itk")
    refused("expected axes", good[:, :, :, None], "symmetric matrix")
    refused("SYMMATRIX", good[:, :, :, None], "symmetric matrix", order="fsl", axes="world")
    refused("shape", good[..., :5], order="fsl")
    refused("4-D or 5-D", good[..., 0], order="fsl")
    refused("NaN", np.where(np.arange(6) == 3, np.nan, good), order="fsl")
    refused("negative eigenvalues", -good, order="fsl")
    refused("all are zero", 0 * good, order="fsl")
    refused("negative eigenvalues", good, order="mrtrix")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError):
        DiffusionTensor.load(path, order="fsl")
    with pytest.raises(InputError, match="found none"):
        DiffusionTensor.load(tmp_path / "none.nii", order="fsl")


def test_noise_becomes_semidefinite_and_the_unknown_isotropic() -> None:
    grid = Grid((10, 10, 10), np.eye(4))
    values = np.tile(np.diag([1.7, 0.3, 0.2]), (1000, 1, 1))
    values[0], values[1], values[2] = np.diag([1.5, 0.3, -0.05]), np.diag([1.5, 0.3, -0.9]), 0
    tensor = DiffusionTensor(values.reshape(10, 10, 10, 3, 3), grid)
    unit = symmetric(np.array(tensor.fields)).reshape(1000, 3, 3)
    np.testing.assert_allclose(unit[0], 3 * np.diag([1.5, 0.3, 0]) / 1.8, atol=1e-6)
    np.testing.assert_array_equal(unit[1], np.eye(3))
    np.testing.assert_array_equal(unit[2], np.eye(3))
    assert tensor.known.sum() == 998
    np.testing.assert_allclose(unit[3], 3 * np.diag([1.7, 0.3, 0.2]) / 2.2, rtol=1e-6)


def test_means_over_cells_stay_tensors_of_unit_mean() -> None:
    mesh = uniform_lattice((1, 1, 1), (7, 7, 7), 1.5)
    tensor = DiffusionTensor(tensors(1000).reshape(10, 10, 10, 3, 3), Grid((10, 10, 10), np.eye(4)))
    means = symmetric(cell_means(mesh, tensor.grid, tensor.fields, spacing=0.5))
    np.testing.assert_allclose(np.trace(means, axis1=1, axis2=2), 3, rtol=1e-6)
    assert np.linalg.eigvalsh(means).min() > 0


# --- diffusion-weighted images ---


def weighted_images(folder: Path, world: np.ndarray, affine: np.ndarray) -> tuple[Path, Path, Path]:
    """Noiseless images of known tensors (mm²/s, world axes) with FSL's files beside them."""
    directions = RNG.standard_normal((30, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[:3] = 0
    weighting = np.where(np.arange(30) < 3, 0, 1000.0)
    turn = fsl_axes(affine)
    signal = 900 * np.exp(-weighting * np.einsum("ni,xyzij,nj->xyzn", directions, world, directions))
    files = (write(folder / "dwi.nii.gz", signal, affine), folder / "bval", folder / "bvec")
    np.savetxt(files[1], weighting[None])
    np.savetxt(files[2], (directions @ turn).T)
    return files


@pytest.mark.parametrize("handed", [1, -1])
def test_a_fit_recovers_known_tensors(tmp_path: Path, handed: int) -> None:
    pytest.importorskip("dipy")
    world = tensors(60).reshape(*SHAPE, 3, 3)
    files = weighted_images(tmp_path, world, oblique(2.0 * handed, 1.5, 2.5))
    fitted = fit_tensor(*files)
    np.testing.assert_allclose(symmetric(np.moveaxis(fitted.values, -1, 0)), world, atol=2e-8)
    chosen = np.zeros((*SHAPE,))
    chosen[1:3] = 1
    mask = write(tmp_path / "mask.nii.gz", chosen, oblique(2.0 * handed, 1.5, 2.5))
    np.testing.assert_array_equal(fit_tensor(*files, mask).known, chosen > 0)


@pytest.mark.realdata
def test_a_real_scan_has_the_diffusivity_of_brain(realdata: Path) -> None:
    """A block of 10×10×10 voxels with 64 directions; its table has NaN for the unweighted image."""
    scan = realdata / "dti" / "dipy_small_64D" / "small_64D"
    fitted = fit_tensor(scan.with_suffix(".nii"), scan.with_suffix(".bval"), scan.with_suffix(".bvec"))
    mean = np.trace(symmetric(np.moveaxis(fitted.values, -1, 0)), axis1=-2, axis2=-1)[fitted.known] / 3
    assert fitted.known.mean() > 0.9
    assert 0.6e-3 < np.median(mean) < 1.2e-3  # mm²/s


def test_gradient_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("dipy")
    dwi, bval, bvec = weighted_images(tmp_path, tensors(60).reshape(*SHAPE, 3, 3), oblique())
    table = np.loadtxt(bvec)

    def refused(match: str, directions: np.ndarray) -> None:
        np.savetxt(bvec, directions)
        with pytest.raises(InputError, match=match):
            fit_tensor(dwi, bval, bvec)

    refused("one for each volume", table[:, :-1])
    refused("length 1", 3 * table)
    refused(
        "six directions", np.where(np.arange(3)[:, None] == 2, 0, table) / np.linalg.norm(table[:2], axis=0).clip(1e-9)
    )
    bvec.write_text("no numbers")
    with pytest.raises(InputError, match="numbers"):
        fit_tensor(dwi, bval, bvec)


def test_without_dipy_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ResourceError, match=r"hybridtumor\[dti\]"):
        fit_tensor(tmp_path / "dwi", tmp_path / "bval", tmp_path / "bvec")
