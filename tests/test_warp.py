"""Carrying along: nothing moved is nothing changed, whole voxels are shifts, volumes change by det(I + ∇v)."""

import numpy as np
import pytest
from figures import Figure
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.errors import ConvergenceError, InputError
from hybridtumor.grid import Grid
from hybridtumor.models.carry import carried
from hybridtumor.models.warp import MOVING, STILL, TOLERANCE, find_origins, jacobian, settled

SHAPE = (44, 40, 36)
CENTRE = np.array([3.0, -2.0, 1.0])


def oblique(shape: tuple[int, int, int] = SHAPE) -> Grid:
    """Anisotropic voxels, a flipped axis, two axes exchanged, turned by 20°."""
    turn = np.array([[np.cos(0.35), -np.sin(0.35), 0], [np.sin(0.35), np.cos(0.35), 0], [0, 0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, -1.0, 0], [1.2, 0, 0], [0, 0, 1.5]])
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def world(grid: Grid) -> NDArray[np.float64]:
    """World coordinates of every voxel, mm, (3, X, Y, Z)."""
    return np.moveaxis(grid.world(np.moveaxis(np.indices(grid.shape), 0, -1)), -1, 0)


def push(grid: Grid, size: float = 4.0, width: float = 9.0) -> NDArray[np.float32]:
    """Tissue pushed away from a centre, at most by about `size` mm, and not at all at the edge of the grid."""
    d = world(grid) - CENTRE[:, None, None, None]
    r = np.linalg.norm(d, axis=0)
    return np.asarray(size * np.e**0.5 * d / width * np.exp(-((r / width) ** 2) / 2), np.float32)


def waves(grid: Grid) -> NDArray[np.float32]:
    """A smooth image: wave lengths of 25 mm and more."""
    x, y, z = world(grid)
    return np.asarray(2 + np.sin(x / 4 + 1) * np.cos(y / 5) + 0.5 * np.sin(z / 6), np.float32)


@pytest.mark.law("mechanics", "An image carried by no displacement is itself, bit for bit")
def test_no_displacement_is_the_identity_bit_for_bit() -> None:
    grid, rng = oblique(), np.random.default_rng(0)
    image = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    origins = find_origins(np.zeros((3, *SHAPE), np.float32), grid)
    assert not origins.mask.any()
    for order in (0, 1, 3):
        assert np.array_equal(carried(image, origins, order=order), image)


@pytest.mark.law("mechanics", "Tissue that has not moved is copied bit for bit")
def test_far_tissue_is_copied_bit_for_bit() -> None:
    grid, rng = oblique(), np.random.default_rng(0)
    v = push(grid, 3.0, 6.0)
    origins = find_origins(v, grid)
    image = rng.normal(size=SHAPE).astype(np.float32)
    for order in (0, 1, 3):
        after = carried(image, origins, order=order)
        assert np.array_equal(after[~origins.mask], image[~origins.mask])
        assert (after[origins.mask] != image[origins.mask]).mean() > (0.3 if order == 0 else 0.9)
    length = np.linalg.norm(v, axis=0)
    assert 0.2 < origins.mask.mean() < 0.8
    assert origins.mask[length > 0.3].mean() > 0.99
    assert not origins.mask[ndimage.maximum_filter(length, 5) < STILL].any()


def test_a_settled_field_is_zero_where_it_is_small_and_itself_where_it_is_large() -> None:
    length = np.linspace(0, 0.3, 301)
    v = np.array([0.6, -0.8, 0.0])[:, None] * length
    after = np.linalg.norm(settled(v), axis=0)
    assert not settled(v)[:, length <= STILL].any()
    assert np.allclose(after[length >= MOVING], length[length >= MOVING], atol=1e-6)
    assert (np.diff(after) >= 0).all()
    assert np.diff(after).max() < 4 * 0.001  # no step: the slope stays below 4


@pytest.mark.parametrize(("order", "tolerance"), [(0, 0.0), (1, 1e-4), (3, 1e-3)])
def test_a_translation_by_whole_voxels_shifts_the_array(order: int, tolerance: float) -> None:
    grid, rng = oblique(), np.random.default_rng(1)
    shift = np.array([2, -1, 1])
    v = np.broadcast_to((grid.affine[:3, :3] @ shift)[:, None, None, None], (3, *SHAPE))
    image = rng.integers(0, 5, SHAPE).astype(np.float32)
    after = carried(image, find_origins(v, grid), order=order)
    inner = (slice(4, -4),) * 3
    assert np.abs(after - np.roll(image, shift, (0, 1, 2)))[inner].max() <= tolerance


@pytest.mark.law("mechanics", "The inverse of a stretch has its closed form")
@pytest.mark.parametrize("stretch", [(1.15, 1.15, 1.15), (0.6, 1.0, 1.3), (2.0, 1.0, 1.0)])
def test_an_affine_map_has_its_closed_inverse(stretch: tuple[float, float, float], figure: Figure) -> None:
    grid = oblique((60, 56, 50))
    factor = np.array(stretch)[:, None, None, None]
    relative = world(grid) - CENTRE[:, None, None, None]
    origins = find_origins((factor - 1) * relative, grid)
    expected = relative / factor
    found = grid.world(np.moveaxis(origins.index, 0, -1)) - CENTRE
    error = np.abs(np.moveaxis(found, -1, 0) - expected[:, *origins.box])
    landed = grid.index(np.moveaxis(expected, 0, -1) + CENTRE)
    inside = ((landed > 12) & (landed < np.array(grid.shape) - 13)).all(axis=-1)[origins.box]
    clear = (np.linalg.norm((factor - 1) * expected, axis=0) > MOVING + 0.15)[origins.box]
    assert (inside & clear & origins.moved).sum() > 1000
    figure("largest error", error[:, inside & clear & origins.moved].max(), "mm", at_most=5 * TOLERANCE)
    assert np.allclose(jacobian((factor - 1) * relative, grid), np.prod(stretch), rtol=1e-9)


@pytest.mark.law("mechanics", "The origin of every voxel solves X + v(X) = x")
def test_the_inverse_solves_its_equation(figure: Figure) -> None:
    grid = oblique()
    v = push(grid, 3.0, 14.0)
    origins = find_origins(v, grid)
    there = np.stack([ndimage.map_coordinates(c, origins.index, order=1, mode="nearest") for c in v])
    landed = np.moveaxis(grid.world(np.moveaxis(origins.index, 0, -1)), -1, 0) + there
    error = np.linalg.norm(landed - world(grid)[:, *origins.box], axis=0)
    figure("largest error", error[origins.moved].max(), "mm", at_most=2 * TOLERANCE)
    figure("mean error", error[origins.moved].mean(), "mm", at_most=TOLERANCE / 2)


@pytest.mark.law("mechanics", "There by v and back by −v: second order in the displacement")
def test_there_and_back_is_the_identity_to_second_order(figure: Figure) -> None:
    grid = oblique((60, 56, 50))
    image, errors = waves(grid), []
    for size in (2.0, 1.0):
        v = push(grid, size, 12.0)
        there = carried(image, find_origins(v, grid), order=3)
        back = carried(there, find_origins(-v, grid), order=3)  # −v is the inverse but for a term in |v||∇v|
        errors.append(float(np.abs(back - image).mean()))
        assert errors[-1] < 0.25 * float(np.abs(there - image).mean())
    figure("order", np.log2(errors[0] / errors[1]), at_least=1.7, at_most=2.3)


def test_carrying_a_smooth_image_is_exact_to_a_percent() -> None:
    grid = oblique()
    v = push(grid, 4.0, 11.0)
    image = waves(grid)
    after = carried(image, find_origins(v, grid), order=3)
    stays = carried(after, find_origins(np.zeros_like(v), grid), order=3)
    place = grid.index(np.moveaxis(world(grid) + v, 0, -1))
    seen = ndimage.map_coordinates(stays, np.moveaxis(place, -1, 0), order=3, mode="nearest")
    inner = (slice(6, -6),) * 3
    assert np.abs(seen - image)[inner].max() < 0.03  # B_t(X + v(X)) = B_0(X)


@pytest.mark.law("mechanics", "The integral of a carried density changes by det(I + ∇v)")
def test_an_integral_changes_by_the_jacobian(figure: Figure) -> None:
    grid = oblique()
    v = push(grid, 3.0, 11.0)
    r = np.linalg.norm(world(grid) - CENTRE[:, None, None, None], axis=0)
    density = np.asarray(0.9 / (1 + np.exp((r - 7) / 1.5)), np.float32)
    after = carried(density, find_origins(v, grid), order=3)
    J = jacobian(v, grid)
    assert J.max() > 1.5
    figure("error", abs(after.sum(dtype=float) / float((density * J).sum()) - 1), at_most=0.002)
    assert after.sum(dtype=float) > 1.3 * density.sum(dtype=float)


def test_nothing_overshoots() -> None:
    grid, rng = oblique(), np.random.default_rng(2)
    origins = find_origins(push(grid), grid)
    steps = (rng.random(SHAPE) > 0.5).astype(np.float32)
    for order in (1, 3):
        after = carried(steps, origins, order=order)
        assert after.min() >= 0
        assert after.max() <= 1
    labels = (4 * (rng.random((3, *SHAPE)) > 0.7)).astype(np.uint8)
    after = carried(labels, origins, order=0)
    assert after.dtype == np.uint8
    assert set(np.unique(after)) == {0, 4}


def test_there_is_no_seam_where_moved_tissue_meets_still_tissue() -> None:
    grid = oblique()
    origins = find_origins(push(grid, 4.0, 6.0), grid)
    away = np.linalg.norm(world(grid) - CENTRE[:, None, None, None], axis=0) > 6  # the centre itself stays, too
    rim = origins.mask & ndimage.binary_dilation(~origins.mask) & away
    image = waves(grid)
    change = np.abs(carried(image, origins, order=3) - image)
    assert rim.sum() > 1000
    assert change[rim].max() < 2 * MOVING * 0.33  # the image changes by at most 0.33 per mm
    assert change.max() > 0.5


def test_a_small_thing_is_carried_as_within_a_whole_image() -> None:
    grid = oblique()
    origins = find_origins(push(grid), grid)
    thing = np.zeros(SHAPE, np.float32)
    thing[24:28, 16:20, 20:23] = 1
    for order in (0, 1, 3):
        alone, within = carried(thing, origins, order=order), carried(thing + 1, origins, order=order) - 1
        assert np.allclose(alone, within, atol=1e-5)
        assert alone.any()


def test_fractions_stay_fractions() -> None:
    grid, rng = oblique(), np.random.default_rng(3)
    white = rng.random(SHAPE).astype(np.float32)
    after = carried(np.stack([white, 1 - white]), find_origins(push(grid), grid), order=1)
    assert np.allclose(after.sum(axis=0), 1, atol=1e-6)
    assert after.min() >= 0


def test_the_way_the_voxels_lie_does_not_matter() -> None:
    grid = oblique()
    flipped = grid.affine @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    image, v = waves(grid), push(grid)
    one = carried(image, find_origins(v, grid), order=3)
    other = carried(image[::-1], find_origins(v[:, ::-1], Grid(SHAPE, flipped)), order=3)
    assert np.allclose(one, other[::-1], atol=1e-5)


def test_tissue_cannot_lie_upon_tissue() -> None:
    grid = oblique()
    with pytest.raises(ConvergenceError, match="positive volume"):
        find_origins(-1.5 * (world(grid) - CENTRE[:, None, None, None]), grid)  # turned inside out in all directions
    with pytest.raises(ConvergenceError, match="positive volume"):
        find_origins(push(grid, -25.0, 9.0), grid)
    with pytest.raises(ConvergenceError, match="residual"):
        find_origins(2.5 * (world(grid) - CENTRE[:, None, None, None]), grid)


def test_wrong_requests_are_refused() -> None:
    grid = oblique()
    v = push(grid)
    with pytest.raises(InputError, match="expected shape"):
        find_origins(v[:, 1:], grid)
    with pytest.raises(InputError, match="finite"):
        find_origins(np.where(v > 1, np.nan, v), grid)
    origins = find_origins(v, grid)
    with pytest.raises(InputError, match="expected the grid's shape"):
        carried(v[:, 1:], origins, order=1)
    with pytest.raises(InputError, match="order 0, 1 or 3"):
        carried(v, origins, order=2)
