"""Look at a run: the mesh of every arm side by side, with a slider for the day and a plane that cuts.

With a screenshot the same scene is drawn without a display.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pyvista as pv

from hybridtumor import mesh_file, scene
from hybridtumor.errors import InputError, ResourceError
from hybridtumor.rundir import RunFolder
from hybridtumor.slices import centre_of_mass


def view_run(run: Path | str, *, screenshot: Path | None = None) -> None:
    """Show a run in a window, or write its picture.

    Parameters
    ----------
    run
        Run folder.
    screenshot
        PNG file to write; None: open a window.

    Raises
    ------
    InputError
        The run has no mesh, or the name does not end in .png.
    ResourceError
        There is no display for a window, or no OpenGL for a picture.
    """
    folder = RunFolder.open(run)
    arms = folder.arms()
    if not arms:
        raise InputError(f"{folder.root}: expected a simulated run, found no finished arm. Go on with --resume.")
    days = {arm: [float(day) for day in folder.figures(arm)["days"]] for arm in arms}
    through = tumour_centre(folder, arms[0], days[arms[0]][0])
    if screenshot is not None:
        if screenshot.suffix.lower() != ".png":
            raise InputError(f"{screenshot}: expected a name that ends in .png. Rename it.")
        fields = {f"{arm}, day {days[arm][-1]:g}": mesh_file.field_name(arm, days[arm][-1]) for arm in arms}
        scene.picture(folder.mesh_path, fields, through, screenshot)
        return
    Viewer(mesh_file.load(folder.mesh_path), days, through).show()


def tumour_centre(folder: RunFolder, arm: str, day: float) -> scene.Point:
    """Return the centre of the visible tumour of an arm on a day, mm RAS+."""
    from hybridtumor.parameters import ImagingThresholds
    from hybridtumor.scan import Scan

    density = Scan.load(folder.field_path(arm, "density", day))
    return centre_of_mass(density.values, density.grid, ImagingThresholds().edema)


@dataclass
class Viewer:
    """The window: its plane and its day are the state that the widgets change.

    Parameters
    ----------
    grid
        Content of ``mesh.vtu``.
    days
        Report days of every arm.
    through
        World point, mm RAS+, that the plane goes through at first.
    """

    grid: pv.UnstructuredGrid
    days: dict[str, list[float]]
    through: scene.Point
    normal: scene.Point = scene.CUT
    day: float = field(default=0.0)

    def show(self) -> None:
        """Open the window and wait until it is closed.

        Raises
        ------
        ResourceError
            There is no display.
        """
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise ResourceError("expected a display to open a window, found none. Use --screenshot FILE.png.")
        self.build().show(title="hybridtumor: research use only")

    def build(self, *, off_screen: bool = False) -> pv.Plotter:
        """Return the scene with its widgets."""
        plotter = pv.Plotter(
            shape=(1, len(self.days)), off_screen=off_screen, window_size=[max(520 * len(self.days), 700), 640]
        )
        self.draw(plotter)
        for column in range(len(self.days)):
            plotter.subplot(0, column)
            plotter.set_background("white")
            scene.look_at_cut(plotter, self.grid)
        plotter.link_views()
        plotter.subplot(0, 0)
        shared = sorted({day for days in self.days.values() for day in days})

        def on_day(value: float) -> None:
            self.day = min(shared, key=lambda day: abs(day - value))
            self.draw(plotter)

        def on_plane(normal: scene.Point, origin: scene.Point) -> None:
            self.normal, self.through = normal, origin
            self.draw(plotter)

        plotter.add_slider_widget(
            on_day,
            (shared[0], shared[-1]),
            value=self.day,
            title="day",
            pointa=(0.2, 0.09),
            pointb=(0.8, 0.09),
            color="black",
            style="modern",
        )
        plotter.subplot(0, 0)
        plotter.add_plane_widget(
            on_plane,
            normal=self.normal,
            origin=self.through,
            bounds=self.grid.bounds,
            implicit=True,
            outline_opacity=0.0,
        )
        return plotter

    def draw(self, plotter: pv.Plotter) -> None:
        """Draw every arm on the present day, cut by the present plane."""
        nearest = {arm: min(days, key=lambda day: abs(day - self.day)) for arm, days in self.days.items()}
        fields = {arm: mesh_file.field_name(arm, day) for arm, day in nearest.items()}
        surface = scene.cut_open(self.grid, fields.values(), self.normal, self.through)
        for column, (arm, day) in enumerate(nearest.items()):
            plotter.subplot(0, column)
            scene.add_arm(plotter, surface.copy(deep=False), fields[arm], name="brain")
            plotter.add_text(f"{arm}, day {day:g}", position="upper_edge", font_size=9, color="black", name="title")
