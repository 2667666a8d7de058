"""The PyVista scene of a run: the mesh cut open, the density of every arm on it, side by side.

`picture` draws it without a display in a process of its own: a graphics driver that crashes costs a picture, no more.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyvista as pv
from matplotlib.colors import LinearSegmentedColormap

from hybridtumor import mesh_file
from hybridtumor.errors import ResourceError

COLOURS = LinearSegmentedColormap.from_list(
    "density",
    [(0.0, "#e4dfd6"), (0.04, "#f5d9b0"), (0.25, "#f39b3c"), (0.6, "#c8321e"), (0.9, "#6d0f3c"), (1.0, "#2d0a33")],
)
"""Brain-coloured where there is no tumour, darker with every cell."""

CUT = (0.0, 0.0, -1.0)
"""Normal of the cut: what lies below it is taken away."""

TIMEOUT = 240
"""Seconds that drawing may take."""

Point = tuple[float, float, float]


def cut_open(grid: pv.UnstructuredGrid, fields: Iterable[str], normal: Point, through: Point) -> pv.PolyData:
    """Return the surface, with these fields on it, of what lies behind a plane, seen against its normal."""
    bare = pv.UnstructuredGrid(grid, deep=False)
    bare.clear_data()
    for name in fields:
        bare.point_data[name] = grid.point_data[name]
    return bare.clip(normal=normal, origin=through).extract_surface(algorithm="dataset_surface")


def add_arm(
    plotter: pv.Plotter, surface: pv.PolyData, field: str, *, edges: bool = True, name: str | None = None
) -> None:
    """Draw a surface coloured by a density into the active part of a scene; one with the same `name` is replaced."""
    plotter.add_mesh(
        surface,
        scalars=field,
        cmap=COLOURS,
        clim=(0, 1),
        show_edges=edges,
        edge_color="#6b655c",
        edge_opacity=0.25,
        line_width=0.5,
        show_scalar_bar=False,
        smooth_shading=False,
        ambient=0.4,
        diffuse=0.65,
        name=name,
        reset_camera=False,
    )


def look_at_cut(plotter: pv.Plotter, surface: pv.PolyData) -> None:
    """Look at an axial cut from below and behind: anterior at the top, the patient's right on the left."""
    centre, size = np.array(surface.center), surface.length
    direction = np.array([0.0, -0.45, -1.0])
    camera = plotter.camera
    height = surface.bounds[3] - surface.bounds[2]
    centre[1] += 0.03 * height  # room for the title above
    camera.focal_point = tuple(centre)
    camera.position = tuple(centre + 3 * size * direction / np.linalg.norm(direction))
    camera.up = (0.0, 1.0, 0.0)
    camera.parallel_projection = True
    camera.parallel_scale = 0.62 * height
    plotter.reset_camera_clipping_range()


def plot(mesh: Path, fields: Mapping[str, str], through: Point, *, size: tuple[int, int] = (440, 520)) -> pv.Plotter:
    """Return an off-screen scene: one view per field, cut by the axial plane through a point.

    Parameters
    ----------
    mesh
        ``mesh.vtu`` of a run.
    fields
        Title of each view to the name of the density in the file.
    through
        World point, mm RAS+, in the plane of the cut.
    """
    grid = mesh_file.load(mesh)
    surface = cut_open(grid, set(fields.values()), CUT, through)
    plotter = pv.Plotter(
        off_screen=True, shape=(1, len(fields)), window_size=[size[0] * len(fields), size[1]], border=False
    )
    for column, (title, field) in enumerate(fields.items()):
        plotter.subplot(0, column)
        plotter.set_background("white")
        add_arm(plotter, surface.copy(deep=False), field)
        plotter.add_text(title, position="upper_edge", font_size=9, color="black")
        look_at_cut(plotter, surface)
    plotter.add_scalar_bar(
        "tumour cell density", color="black", vertical=False, width=0.6, height=0.05, position_x=0.2, position_y=0.01,
        label_font_size=12, title_font_size=12, n_labels=2, fmt="%.1f",
    )  # fmt: skip
    return plotter


def picture(mesh: Path, fields: Mapping[str, str], through: Point, out: Path) -> None:
    """Draw the scene to a PNG file in a process of its own.

    Raises
    ------
    ResourceError
        There is no way to draw here (no OpenGL, a driver that fails, no time).
    """
    temporary = out.with_name(f".{out.stem}.{os.getpid()}.png")
    command = [sys.executable, "-m", "hybridtumor.scene", str(mesh), str(temporary), *(f"{x:.6f}" for x in through)]
    command += [part for title, field in fields.items() for part in (title, field)]
    out.parent.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "MPI", "HYDRA"))} | {
        "PYVISTA_OFF_SCREEN": "true"
    }
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False)  # noqa: S603
        if run.returncode or not temporary.is_file():
            last = (run.stderr.strip().splitlines() or ["no message"])[-1]
            raise ResourceError(
                f"expected to draw with OpenGL, the drawing process ended with {run.returncode} ({last})."
                " Run `hybridtumor doctor`."
            )
        temporary.replace(out)
    except subprocess.TimeoutExpired as error:
        raise ResourceError(
            f"expected to draw with OpenGL, nothing came in {TIMEOUT} s. Run `hybridtumor doctor`."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: list[str]) -> None:
    """Draw one picture: mesh, PNG, three coordinates, then title and field of every view."""
    mesh, out, *rest = arguments
    x, y, z = (float(value) for value in rest[:3])
    titles, fields = rest[3::2], rest[4::2]
    plot(Path(mesh), dict(zip(titles, fields, strict=True)), (x, y, z)).screenshot(out)


if __name__ == "__main__":
    main(sys.argv[1:])
