"""Which mesh a simulation uses: the lattice, a smooth one, or one from a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hybridtumor.errors import InputError
from hybridtumor.grid import FloatArray
from hybridtumor.mesh_import import Frame, load_mesh, region_labels, require_overlap, tissue_of_labels
from hybridtumor.meshes import smooth
from hybridtumor.meshes.any_mesh import TISSUES, brain_mesh_on
from hybridtumor.meshes.brain import BrainMesh, brain_mesh
from hybridtumor.tissue import TissueMap

Method = Literal["lattice", "tetwild"]


@dataclass(frozen=True)
class MeshSource:
    """Where a mesh comes from.

    Parameters
    ----------
    method
        ``lattice``, or ``tetwild``: a smooth boundary, on the lattice when that fails.
    file
        A mesh file, which takes the place of both.
    unit, frame
        Length unit and frame of the file.
    labels
        Name of the file's array of regions; None: one of the usual names.
    tissues
        Label to ``white``, ``grey`` or ``csf``; cells of other labels are what the tissue fractions say.
    timeout_s
        Seconds that ``tetwild`` gets.
    """

    method: Method = "lattice"
    file: Path | None = None
    unit: str = "mm"
    frame: Frame = "RAS"
    labels: str | None = None
    tissues: Mapping[int, str] = field(default_factory=dict)
    timeout_s: float = smooth.TIMEOUT


LATTICE = MeshSource()
"""The lattice: the default."""


def parse_tissues(texts: Sequence[str]) -> dict[int, str]:
    """Return the tissues of labels from texts such as ``2=white``.

    Raises
    ------
    InputError
        A text of another form, or a label named twice.
    """
    result: dict[int, str] = {}
    for text in texts:
        label, _, tissue = text.partition("=")
        if not label.strip().lstrip("-").isdecimal() or tissue.strip() not in TISSUES or int(label) in result:
            raise InputError(f"tissue: expected each label once, such as 2=white, 3=grey or 1=csf, got {text!r}.")
        result[int(label)] = tissue.strip()
    return result


def choose_mesh(
    source: MeshSource,
    tissue: TissueMap,
    density: FloatArray,
    *,
    margin_mm: float,
    cell_size_mm: float = 2.0,
    coarsest_mm: float = 8.0,
) -> tuple[BrainMesh, str]:
    """Mesh the parenchyma of a patient as the source says.

    Parameters
    ----------
    source
        Where the mesh comes from.
    tissue, density, margin_mm, cell_size_mm, coarsest_mm
        As for `meshes.brain.brain_mesh`; a mesh from a file has the sizes it has.

    Returns
    -------
    tuple[BrainMesh, str]
        The mesh, and how it was made: ``lattice``, ``tetwild`` or the file's name.

    Warns
    -----
    RuntimeWarning
        The smooth mesh failed and the lattice takes its place.

    Raises
    ------
    InputError
        An unknown method, sizes that cannot be, or a file that cannot be used for this patient.
    ResourceError
        A file needs the extra `mesh`.
    """
    if source.method not in {"lattice", "tetwild"}:
        raise InputError(f"mesh method: expected lattice or tetwild, got {source.method!r}.")
    sizes = {"margin_mm": margin_mm, "cell_size_mm": cell_size_mm, "coarsest_mm": max(cell_size_mm, coarsest_mm)}
    if source.file is not None:
        return _from_file(source, source.file, tissue), source.file.name
    if source.method == "tetwild":
        return smooth.meshed(tissue, density, **sizes, timeout_s=source.timeout_s)
    return brain_mesh(tissue, density, **sizes), "lattice"


def _from_file(source: MeshSource, file: Path, tissue: TissueMap) -> BrainMesh:
    """Read a mesh, check that it fits the patient, and give its cells their tissue."""
    mesh, data = load_mesh(file, unit=source.unit, frame=source.frame)
    require_overlap(mesh, tissue)
    if not source.tissues:
        return brain_mesh_on(mesh, tissue)
    return brain_mesh_on(mesh, tissue, tissue_of_labels(region_labels(data, source.labels), source.tissues))
