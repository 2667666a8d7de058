"""Sections are hung by the affine: R is the patient's right in every file order."""

from itertools import permutations, product

import numpy as np
import pytest
from ball_brain import ball_grid

from hybridtumor.grid import Grid
from hybridtumor.slices import PLANES, Section, centre_of_mass

RIGHT, FRONT, TOP = (12.0, 0.0, 0.0), (0.0, 15.0, 0.0), (0.0, 0.0, 18.0)


def cross() -> tuple[np.ndarray, Grid]:
    """An image with a mark of its own to the right (1), front (2) and top (3) of the origin."""
    grid = Grid((21, 25, 27), np.array([[2.0, 0, 0, -20], [0, 2, 0, -24], [0, 0, 2, -26], [0, 0, 0, 1]]))
    values = np.zeros(grid.shape)
    for mark, point in enumerate((RIGHT, FRONT, TOP), start=1):
        values[tuple(np.rint(grid.index(point)).astype(int))] = mark
    return values, grid


@pytest.mark.parametrize(("order", "signs"), list(product(permutations(range(3)), product((1, -1), repeat=3))))
def test_any_file_order_gives_the_same_section(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    values, grid = cross()
    turned = np.transpose(values, order)[tuple(slice(None, None, s) for s in signs)]
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        to_old[old, new] = sign
        to_old[old, 3] = 0 if sign == 1 else values.shape[old] - 1
    other = Grid(turned.shape, grid.affine @ to_old)
    for plane in PLANES:
        assert np.array_equal(Section(plane, grid, (0, 0, 0)).of(values), Section(plane, other, (0, 0, 0)).of(turned))


def test_directions_of_the_three_planes() -> None:
    values, grid = cross()
    where = {plane: {int(m): tuple(np.argwhere(s == m)[0]) for m in np.unique(s) if m} for plane in PLANES
             for s in [Section(plane, grid, (0, 0, 0)).of(values)]}  # fmt: skip
    middle = {"axial": (12, 10), "coronal": (13, 10), "sagittal": (13, 12)}
    assert where["axial"][1] == (middle["axial"][0], middle["axial"][1] - 6)  # the patient's right on the left
    assert where["axial"][2][0] < middle["axial"][0]  # front at the top
    assert where["coronal"][3][0] < middle["coronal"][0]  # top at the top
    assert where["coronal"][1][1] < middle["coronal"][1]
    assert where["sagittal"][2][1] < middle["sagittal"][1]  # looks to the left
    assert where["sagittal"][3][0] < middle["sagittal"][0]


def test_pixels_keep_their_proportions() -> None:
    grid = Grid((10, 10, 10), np.diag([1.0, 2.0, 5.0, 1.0]))
    assert Section("axial", grid, (0, 0, 0)).pixel == (2.0, 1.0)
    assert Section("sagittal", grid, (0, 0, 0)).aspect == pytest.approx(2.5)


def test_centre_of_mass_is_in_the_world() -> None:
    for flip in (False, True):
        grid = ball_grid(flip=flip)
        values = np.zeros(grid.shape, np.float32)
        index = np.rint(grid.index((10.0, 0.0, 4.0))).astype(int)
        values[tuple(index)] = 0.9
        assert np.allclose(centre_of_mass(values, grid, 0.2), grid.world(index))


def test_the_window_keeps_what_is_inside() -> None:
    values, grid = cross()
    section = Section("axial", grid, (0, 0, 0))
    narrow = section.cropped_to(values > 0, margin_mm=2.0)
    assert sorted(np.unique(narrow.of(values))) == [0, 1, 2]
    assert narrow.of(values).size < section.of(values).size
