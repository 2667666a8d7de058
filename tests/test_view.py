"""The scene is drawn without a display, and a driver that fails costs one picture."""

import sys
from pathlib import Path

import numpy as np
import pytest
import small_run
from ball_brain import TUMOUR
from matplotlib.image import imread

from hybridtumor import mesh_file, scene
from hybridtumor.compare import compare
from hybridtumor.errors import InputError, ResourceError
from hybridtumor.forecast import MeshFields
from hybridtumor.run_report import write_report
from hybridtumor.rundir import RunFolder
from hybridtumor.view import Viewer, view_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("view")
    small_run.small_patient().save(folder / "patient")
    with pytest.MonkeyPatch.context() as patch:
        small_run.quick(patch)
        return compare(small_run.small_scenario(folder / "patient"), folder / "run", images=False, cell_size="4 mm")


def test_a_screenshot_needs_no_display(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    view_run(run.root, screenshot=tmp_path / "scene.png")
    picture = imread(tmp_path / "scene.png")[..., :3]
    assert picture.shape[1] > 2 * picture.shape[0]  # three arms side by side
    red = (picture[..., 0] - picture[..., 2]) > 0.35
    thirds = [part.mean() for part in np.array_split(red, 3, axis=1)]
    assert min(thirds[0], thirds[2]) > 1.2 * thirds[1] > 0  # the treated tumour, in the middle, is the smallest


def test_the_window_follows_slider_and_plane(run: RunFolder) -> None:
    days = {arm: [0.0, 20.0, 40.0] for arm in run.arms()}
    viewer = Viewer(mesh_file.load(run.mesh_path), days, tuple(TUMOUR))
    plotter = viewer.build(off_screen=True)
    assert len(plotter.widgets.slider_widgets) == 1
    assert len(plotter.widgets.plane_widgets) == 1
    before = plotter.screenshot(return_img=True)
    slider = plotter.widgets.slider_widgets[0]
    slider.GetRepresentation().SetValue(37.0)
    slider.InvokeEvent("EndInteractionEvent")
    assert viewer.day == 40.0
    assert (plotter.screenshot(return_img=True) != before).any()
    plotter.close()


def test_a_broken_driver_costs_one_picture(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = (run.root / "summary.json").read_bytes()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    write_report(run)
    assert any("mesh is missing" in warning for warning in run.manifest.warnings)
    assert "mesh is missing" in run.report_path.read_text()
    assert (run.root / "summary.json").read_bytes() == numbers
    with pytest.raises(ResourceError, match="doctor"):
        view_run(run.root, screenshot=run.root / "x.png")
    assert not list(run.root.rglob(".*.png"))


def test_a_window_needs_a_display(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ResourceError, match="--screenshot"):
        view_run(run.root)


def test_bad_requests_are_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="png"):
        view_run(run.root, screenshot=tmp_path / "x.jpg")
    with pytest.raises(InputError, match="run folder"):
        view_run(tmp_path)
    with pytest.raises(InputError, match="found none"):
        mesh_file.load(tmp_path / "mesh.vtu")


def test_arms_of_two_meshes_are_not_mixed(tmp_path: Path) -> None:
    points, cells = np.eye(4, 3), np.arange(4).reshape(1, 4)
    mesh_file.add_arm(tmp_path / "mesh.vtu", "a", MeshFields(points, cells, {0.0: np.ones(4)}))
    mesh_file.add_arm(tmp_path / "mesh.vtu", "b", MeshFields(points, cells, {0.0: np.zeros(4)}))
    assert set(mesh_file.load(tmp_path / "mesh.vtu").point_data) == {"a day 0", "b day 0"}
    with pytest.raises(InputError, match="another"):
        mesh_file.add_arm(tmp_path / "mesh.vtu", "c", MeshFields(2 * points, cells, {0.0: np.ones(4)}))
    assert [p.name for p in tmp_path.iterdir()] == ["mesh.vtu"]


def test_the_cut_faces_the_camera() -> None:
    import pyvista as pv

    grid = pv.ImageData(dimensions=(5, 5, 5)).to_tetrahedra()
    surface = scene.cut_open(grid, [], scene.CUT, (2.0, 2.0, 2.0))
    assert surface.bounds[4] == pytest.approx(2.0)  # what lies below the plane is gone
