"""A mesh from a file is the mesh that was written, in mm and RAS+; what cannot be used is refused with its reason."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvista as pv
import small_run
from ball_brain import CENTRE, ball_density, ball_grid, ball_tissue

from hybridtumor import cli, mesh_readers, mesh_xdmf
from hybridtumor.errors import InputError, ResourceError
from hybridtumor.mesh_choice import MeshSource, choose_mesh, parse_tissues
from hybridtumor.mesh_import import load_mesh, region_labels, require_overlap, tissue_of_labels
from hybridtumor.meshes import smooth
from hybridtumor.meshes.lattice import TetMesh, uniform_lattice

meshio = pytest.importorskip("meshio", reason="the extra `mesh` (meshio) is not installed")
h5py = pytest.importorskip("h5py", reason="the extra `mesh` (h5py) is not installed")

LOW, HIGH = CENTRE - 24, CENTRE + 24


def lattice(spacing: float = 8.0) -> TetMesh:
    return uniform_lattice(LOW, HIGH, spacing)


def sides(mesh: TetMesh) -> np.ndarray:
    """Label 2 on the left and 3 on the right."""
    return np.where(mesh.corners.mean(0)[0] < CENTRE[0], 2, 3).astype(np.int32)


def as_meshio(mesh: TetMesh, name: str = "label", kind: str = "tetra", **more: Any) -> Any:
    return meshio.Mesh(mesh.points, [(kind, mesh.cells)], cell_data={name: [sides(mesh)]}, **more)


def save(path: Path, mesh: TetMesh, name: str = "label", **options: Any) -> Path:
    """Write with meshio, whose remarks are not ours."""
    meshio.write(path, as_meshio(mesh, name), **options)
    return path


def same(first: TetMesh, second: TetMesh) -> None:
    """Both meshes are made of the same cells, whatever the order of their points."""
    assert len(first.points) == len(second.points)
    one, two = (m.corners.mean(0).T[np.lexsort(np.round(m.corners.mean(0), 4))] for m in (first, second))
    assert one == pytest.approx(two, abs=1e-4)
    assert second.volumes.sum() == pytest.approx(first.volumes.sum(), rel=1e-5)
    assert second.volumes.min() > 0


def by_pyvista(path: Path, mesh: TetMesh, **options: Any) -> None:
    grid = pv.UnstructuredGrid({pv.CellType.TETRA: mesh.cells}, mesh.points)
    grid.cell_data["label"] = sides(mesh)
    grid.cell_data["white"] = np.linspace(0, 1, len(mesh.cells))
    grid.save(path, **options)


def by_dolfinx(path: Path, mesh: TetMesh, every: int = 1) -> None:
    from hybridtumor.solvers.petsc import MPI  # isort: skip
    import dolfinx

    assert len(mesh.cells)
    box = dolfinx.mesh.create_box(MPI.COMM_SELF, [LOW, HIGH], [4, 4, 4])
    cells = np.arange(0, box.topology.index_map(3).size_local, every, dtype=np.int32)
    middle = dolfinx.mesh.compute_midpoints(box, 3, cells)[:, 0]
    tags = dolfinx.mesh.meshtags(box, 3, cells, np.where(middle < CENTRE[0], 2, 3).astype(np.int32))
    tags.name = "label"
    with dolfinx.io.XDMFFile(MPI.COMM_SELF, path, "w") as file:
        file.write_mesh(box)
        file.write_meshtags(tags, box.geometry)


def by_gmsh4(path: Path, mesh: TetMesh) -> None:
    """Gmsh's format 4.1 has one block of cells per region."""
    labels = sides(mesh)
    blocks = [("tetra", mesh.cells[labels == label]) for label in (2, 3)]
    data = {f"gmsh:{name}": [labels[labels == label] for label in (2, 3)] for name in ("geometrical", "physical")}
    entity = np.where(np.arange(len(mesh.points))[:, None] % 2, [3, 2], [3, 3])
    parts = meshio.Mesh(mesh.points, blocks, point_data={"gmsh:dim_tags": entity}, cell_data=data)
    meshio.write(path, parts, file_format="gmsh")


GMSH = """$MeshFormat
4.1 0 8
$EndMeshFormat
$PhysicalNames
2
3 11 "white"
3 12 "grey"
$EndPhysicalNames
$Entities
0 0 0 2
1 0 0 0 1 1 1 1 11 0
2 0 0 0 1 1 1 1 12 0
$EndEntities
$Nodes
1 5 1 5
3 1 0 5
1
2
3
4
5
0 0 0
1 0 0
0 1 0
0 0 1
1 1 1
$EndNodes
$Elements
2 2 1 2
3 1 4 1
1 1 2 3 4
3 2 4 1
2 2 3 4 5
$EndElements
"""
"""Two tetrahedra in two physical groups, as Gmsh writes them."""


WRITERS: dict[str, tuple[str, Callable[[Path, TetMesh], object]]] = {
    "vtu": ("label", by_pyvista),
    "ascii.vtu": ("label", lambda p, m: by_pyvista(p, m, binary=False)),
    "vtk": ("label", by_pyvista),
    "ascii.vtk": ("label", lambda p, m: by_pyvista(p, m, binary=False)),
    "meshio.vtu": ("label", save),
    "4.msh": ("gmsh:physical", by_gmsh4),
    "2.msh": ("gmsh:physical", lambda p, m: save(p, m, "gmsh:physical", file_format="gmsh22", binary=False)),
    "mesh": ("medit:ref", lambda p, m: save(p, m, "medit:ref")),
    "meshb": ("medit:ref", lambda p, m: save(p, m, "medit:ref")),
    "xdmf": ("label", save),
    "text.xdmf": ("label", lambda p, m: save(p, m, data_format="XML")),
    "inp": ("", save),
    "bdf": ("", save),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_mesh_comes_back(suffix: str, tmp_path: Path) -> None:
    mesh, path = lattice(12.0), tmp_path / f"brain.{suffix}"
    name, write = WRITERS[suffix]
    write(path, mesh)
    loaded, data = load_mesh(path)
    same(mesh, loaded)
    if name:
        assert np.array_equal(region_labels(data), sides(loaded))
        assert np.array_equal(region_labels(data, name), sides(loaded))


def test_physical_groups_of_gmsh_are_labels(tmp_path: Path) -> None:
    (tmp_path / "two.msh").write_text(GMSH)
    mesh, data = load_mesh(tmp_path / "two.msh")
    assert mesh.volumes == pytest.approx([1 / 6, 1 / 3])
    assert region_labels(data).tolist() == [11, 12]


def test_what_dolfinx_writes_comes_back_with_its_tags(tmp_path: Path) -> None:
    by_dolfinx(tmp_path / "all.xdmf", lattice())
    mesh, data = load_mesh(tmp_path / "all.xdmf")
    assert mesh.volumes.sum() == pytest.approx(48**3)
    assert len(mesh.points) == 5**3
    assert np.array_equal(region_labels(data), sides(mesh))
    by_dolfinx(tmp_path / "some.xdmf", lattice(), every=3)
    mesh, data = load_mesh(tmp_path / "some.xdmf")
    labels = region_labels(data)
    known = labels != mesh_xdmf.UNLABELLED
    assert known.sum() == len(mesh.cells) // 3
    assert np.array_equal(labels[known], sides(mesh)[known])


def test_triangles_are_dropped_with_a_note(tmp_path: Path) -> None:
    mesh = lattice(12.0)
    blocks = [("tetra", mesh.cells[:100]), ("triangle", mesh.cells[:7, :3]), ("tetra", mesh.cells[100:])]
    labels = [sides(mesh)[:100], np.zeros(7, np.int32), sides(mesh)[100:]]
    for name in ("a.xdmf", "a.mesh", "a.vtu"):
        array = "medit:ref" if name == "a.mesh" else "label"
        meshio.write(tmp_path / name, meshio.Mesh(mesh.points, blocks, cell_data={array: labels}))
        with pytest.warns(UserWarning, match="triangle"):
            loaded, data = load_mesh(tmp_path / name)
        same(mesh, loaded)
        assert np.array_equal(region_labels(data), sides(loaded))
    meshio.write(tmp_path / "b.vtu", meshio.Mesh(mesh.points, blocks[1:2]))
    with pytest.raises(InputError, match="tetrahedra, found triangle"):
        load_mesh(tmp_path / "b.vtu")


@pytest.mark.parametrize("name", ["curved.vtu", "curved.xdmf", "curved.msh"])
def test_of_curved_cells_the_corners_count(name: str, tmp_path: Path) -> None:
    mesh = lattice(12.0)
    pairs = np.array([(0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (2, 3)])
    edges = np.sort(mesh.cells[:, pairs], axis=2).reshape(-1, 2)
    unique, number = np.unique(edges, axis=0, return_inverse=True)
    points = np.concatenate([mesh.points, mesh.points[unique].mean(1) + 0.1])
    cells = np.concatenate([mesh.cells, len(mesh.points) + number.reshape(-1, 6)], axis=1)
    curved = meshio.Mesh(points, [("tetra10", cells)])
    meshio.write(tmp_path / name, curved, **({"file_format": "gmsh22"} if name.endswith("msh") else {}))
    same(mesh, load_mesh(tmp_path / name)[0])


def test_points_are_merged_and_cells_turned(tmp_path: Path) -> None:
    mesh = lattice(12.0)
    jitter = np.random.default_rng(0).uniform(-1e-8, 1e-8, (4 * len(mesh.cells), 3))
    torn = TetMesh(np.concatenate([mesh.points[mesh.cells].reshape(-1, 3) + jitter, [[500.0, 0, 0]]]), mesh.cells)
    cells = np.arange(4 * len(mesh.cells)).reshape(-1, 4)
    cells[::3] = cells[::3][:, [1, 0, 2, 3]]
    by_pyvista(tmp_path / "torn.vtu", TetMesh(torn.points, cells))
    same(mesh, load_mesh(tmp_path / "torn.vtu")[0])


def test_degenerate_cells_are_refused_with_their_count(tmp_path: Path) -> None:
    mesh = lattice(12.0)
    cells = mesh.cells.copy()
    cells[4, 1] = cells[4, 0]
    points = np.concatenate([mesh.points, [mesh.points[mesh.cells[9, :3]].mean(0)]])
    cells[9, 3] = len(mesh.points)
    by_pyvista(tmp_path / "flat.vtu", TetMesh(points, cells))
    with pytest.raises(InputError, match="2 degenerate"):
        load_mesh(tmp_path / "flat.vtu")


def test_units_and_frames(tmp_path: Path) -> None:
    mesh, tissue = lattice(), ball_tissue(ball_grid())
    by_pyvista(tmp_path / "m.vtu", TetMesh(mesh.points / 1000, mesh.cells))
    by_pyvista(tmp_path / "lps.vtu", TetMesh(mesh.points * [-1, -1, 1], mesh.cells))
    same(mesh, load_mesh(tmp_path / "m.vtu", unit="m")[0])
    same(mesh, load_mesh(tmp_path / "lps.vtu", frame="LPS")[0])
    with pytest.raises(InputError, match="Give the unit m"):
        require_overlap(load_mesh(tmp_path / "m.vtu")[0], tissue)
    with pytest.raises(InputError, match="expected one of mm"):
        load_mesh(tmp_path / "m.vtu", unit="mile")
    with pytest.raises(InputError, match="RAS or LPS"):
        load_mesh(tmp_path / "m.vtu", frame="LAS")  # type: ignore[arg-type]


def test_a_mesh_covers_the_brain_or_is_refused() -> None:
    tissue = ball_tissue(ball_grid())
    mesh = uniform_lattice(CENTRE - 20, CENTRE + 20, 4.0)
    assert require_overlap(mesh, tissue) > 0.95
    for shift in (10.0, 30.0, 500.0):
        with pytest.raises(InputError, match="inside the mesh"):
            require_overlap(TetMesh(mesh.points + shift * np.eye(3)[2], mesh.cells), tissue)
    with pytest.raises(InputError, match="other frame"):
        require_overlap(TetMesh(mesh.points * [-1, -1, 1], mesh.cells), tissue)
    with pytest.raises(InputError, match="do not overlap"):
        require_overlap(TetMesh(mesh.points, np.concatenate([mesh.cells, mesh.cells])), tissue)
    with pytest.raises(InputError, match="unit of the mesh"):
        require_overlap(TetMesh(mesh.points * 7, mesh.cells), tissue)
    half = mesh.submesh(mesh.corners.mean(0)[0] < CENTRE[0])
    with pytest.raises(InputError, match="inside the mesh, got 4"):
        require_overlap(half, tissue)


def test_labels_become_tissues() -> None:
    labels = np.array([1, 2, 2, 7])
    assert tissue_of_labels(labels, {1: "white", 2: "csf"}).tolist() == ["white", "csf", "csf", ""]
    with pytest.raises(InputError, match="label 5 on some cell, the mesh has 1, 2, 7"):
        tissue_of_labels(labels, {5: "white"})
    with pytest.raises(InputError, match="white, grey or csf"):
        tissue_of_labels(labels, {1: "bone"})
    assert parse_tissues(["2=white", "-1 = grey"]) == {2: "white", -1: "grey"}
    for text in (["white"], ["2=bone"], ["2=white", "2=grey"], ["=white"], ["1.5=white"]):
        with pytest.raises(InputError, match="each label once"):
            parse_tissues(text)
    for name, values in {"label": np.array([0.5, 1]), "label ": np.array([[1, 2], [3, 4]])}.items():
        with pytest.raises(InputError, match="whole number"):
            region_labels({name: values}, name)
    with pytest.raises(InputError, match="found density"):
        region_labels({"density": np.zeros(2)})
    with pytest.raises(InputError, match="expected brain per cell"):
        region_labels({"label": np.zeros(2)}, "brain")


# --- what is refused


@pytest.mark.parametrize(
    "kind", ["vtu", "ascii.vtk", "4.msh", "2.msh", "mesh", "meshb", "xdmf", "text.xdmf", "inp", "bdf"]
)
def test_damaged_files_give_input_errors(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"brain.{kind}"
    WRITERS[kind][1](path, lattice(24.0))
    capfd.readouterr()
    monkeypatch.setattr(mesh_readers, "READ_SECONDS", 10.0)
    whole, chance = path.read_bytes(), np.random.default_rng(5)
    in_process = path.suffix == ".xdmf"
    wrecks = [whole[: int(len(whole) * share)] for share in ([0.02, 0.3, 0.6, 0.9] if in_process else [0.4])]
    wrecks.append(bytes(chance.integers(0, 256, 3000, np.uint8)))
    hopeless = len(wrecks)
    for _ in range(25 if in_process else 1):
        wreck = np.frombuffer(whole, np.uint8).copy()
        wreck[chance.integers(0, len(wreck), 12)] = chance.integers(0, 256, 12)
        wrecks.append(wreck.tobytes())
    refused = 0
    for wreck in wrecks:
        path.write_bytes(wreck)
        try:
            mesh, _ = load_mesh(path)
        except InputError:
            refused += 1
        else:
            assert np.isfinite(mesh.points).all()  # a number has changed, nothing else
            assert mesh.volumes.min() > 0
    assert refused >= hopeless
    assert not capfd.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "count", "match"), [(3.0, "999999999 9", "no end"), (60.0, "1 999999999999", "cannot be")]
)
def test_a_file_that_promises_too_much_is_given_up(
    seconds: float, count: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_readers, "READ_SECONDS", seconds)
    text = GMSH.replace("$Elements\n2 2 1 2\n", f"$Elements\n{count} 1 2\n")
    if "999999999999" in count:
        text = text.replace("3 1 4 1\n1 1", "3 1 4 999999999999\n1 1")
    (tmp_path / "two.msh").write_text(text)
    with pytest.raises(InputError, match=match):
        load_mesh(tmp_path / "two.msh")


def test_damaged_hdf5_gives_input_errors(tmp_path: Path) -> None:
    by_dolfinx(tmp_path / "brain.xdmf", lattice())
    whole = (tmp_path / "brain.h5").read_bytes()
    for wreck in (whole[: len(whole) // 2], whole[:100], b"", b"\x00" * 4096):
        (tmp_path / "brain.h5").write_bytes(wreck)
        with pytest.raises(InputError, match="cannot be read"):
            load_mesh(tmp_path / "brain.xdmf")
    (tmp_path / "brain.h5").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_mesh(tmp_path / "brain.xdmf")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("brain.h5:", "/etc/brain.h5:", "same folder"),
        ("brain.h5:", "../brain.h5:", "same folder"),
        ('Dimensions="125 3"', 'Dimensions="125000000000 3"', "promises"),
        ('Dimensions="125 3"', 'Dimensions="-125 3"', "promises"),
        ('Dimensions="125 3"', "", "cannot be read"),
        ("/Mesh/mesh/geometry", "/Mesh/nothing", "cannot be read"),
        ("/Mesh/mesh/geometry", "/Mesh", "no array"),
        ('Format="HDF">brain.h5:/Mesh/mesh/g', 'Format="Binary">brain.h5:/Mesh/mesh/g', "Binary"),
        ('<Xdmf Version', '<!DOCTYPE a [<!ENTITY b "c">]><Xdmf Version', "entities"),
        ("</Xdmf>", "", "cannot be read"),
        ('GridType="Uniform"', 'GridType="Collection"', "found none"),
        ("Tetrahedron", "Hexahedron", "found hexahedron"),
    ],
)  # fmt: skip
def test_xdmf_that_asks_for_more_than_a_mesh(old: str, new: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "brain.xdmf"
    by_dolfinx(path, lattice())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=match):
        load_mesh(path)


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="found none"):
        load_mesh(tmp_path / "nothing.vtu")
    with pytest.raises(InputError, match="found none"):
        load_mesh(tmp_path)
    (tmp_path / "a.stl").write_text("solid")
    with pytest.raises(InputError, match=r"\.vtu, \.vtk"):
        load_mesh(tmp_path / "a.stl")
    (tmp_path / "a.msh").write_text("")
    with pytest.raises(InputError, match="not empty"):
        load_mesh(tmp_path / "a.msh")
    monkeypatch.setattr(mesh_readers, "LARGEST_FILE", 10)
    (tmp_path / "a.msh").write_text("a" * 11)
    with pytest.raises(InputError, match="at most"):
        load_mesh(tmp_path / "a.msh")


def test_without_the_extra_its_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.mesh", lattice(24.0), "medit:ref")
    save(tmp_path / "a.xdmf", lattice(24.0))
    monkeypatch.setattr(mesh_readers, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"meshio.*hybridtumor\[mesh\]"):
        load_mesh(tmp_path / "a.mesh")
    original = builtins.__import__

    def without(wanted: str, *rest: Any, **more: Any) -> Any:
        if wanted == "h5py":
            raise ModuleNotFoundError(wanted)
        return original(wanted, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ResourceError, match=r"h5py.*hybridtumor\[mesh\]"):
        load_mesh(tmp_path / "a.xdmf")


# --- the choice, and the command


def test_one_entry_gives_every_mesh(tmp_path: Path) -> None:
    tissue = ball_tissue(ball_grid())
    density = ball_density(tissue.grid, tissue).values
    sizes = {"margin_mm": 2.0, "cell_size_mm": 4.0}
    brain, method = choose_mesh(MeshSource(), tissue, density, **sizes)
    assert method == "lattice"
    by_pyvista(tmp_path / "brain.vtu", lattice(4.0))
    source = MeshSource(file=tmp_path / "brain.vtu", tissues={2: "white", 3: "grey"})
    brain, method = choose_mesh(source, tissue, density, **sizes)
    assert method == "brain.vtu"
    left = brain.mesh.corners.mean(0)[0] < CENTRE[0]
    assert (brain.white[left] == 1).all()
    assert (brain.grey[~left] == 1).all()
    burden = brain.transfer.node_volume @ brain.transfer.to_mesh(density)
    assert burden == pytest.approx(density.sum(dtype=float) * tissue.grid.voxel_volume, rel=1e-6)
    by_fractions, _ = choose_mesh(MeshSource(file=tmp_path / "brain.vtu"), tissue, density, **sizes)
    assert by_fractions.fraction.min() < 1
    assert 0.2 < by_fractions.white.mean() < 0.6
    with pytest.raises(InputError, match="lattice or tetwild"):
        choose_mesh(MeshSource(method="magic"), tissue, density, **sizes)  # type: ignore[arg-type]


def test_the_command_takes_a_mesh_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run.small_patient().save(tmp_path / "patient")
    mesh = lattice(4.0)
    label = np.where(mesh.corners.mean(0)[0] < CENTRE[0], 2, 3)
    metres = meshio.Mesh(mesh.points / 1000, [("tetra", mesh.cells)], cell_data={"label": [label]})
    meshio.write(tmp_path / "mine.vtu", metres)
    command = ["mesh", str(tmp_path / "patient"), "--from", str(tmp_path / "mine.vtu"), "--cell-size", "4 mm"]
    assert cli.main(command) == 2
    assert "Give the unit m" in capsys.readouterr().err
    more = ["--unit", "m", "--labels", "label", "--tissue", "2=white", "--tissue", "3=grey"]
    assert cli.main([*command, *more, "--out", str(tmp_path / "brain.vtu")]) == 0
    told = capsys.readouterr().out
    assert "mine.vtu" in told
    assert "positive off-diagonal" in told
    again, data = load_mesh(tmp_path / "brain.vtu")
    assert set(np.unique(data["white"])) == {0, 1}
    assert again.volumes.min() > 0


def test_the_command_tells_when_the_lattice_takes_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_run.small_patient().save(tmp_path / "patient")
    monkeypatch.setattr(smooth, "find_spec", lambda name: None)
    assert cli.main(["mesh", str(tmp_path / "patient"), "--cell-size", "4 mm", "--method", "tetwild"]) == 0
    told = capsys.readouterr().out
    assert "lattice" in told
    assert "hybridtumor[mesh]" in told.replace("\n", "")
