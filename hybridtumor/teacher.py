"""Teacher: what the refiner learns from, prepared once and kept as safetensors.

Two kinds of lesson, both on the working grid (`hybridtumor.models.resolution`):

- `RealCase`: one segmented glioma. The pairs drawn from it (`hybridtumor.training_pairs`) have as baseline the scan
  with the tumour filled
  by healthy tissue, with part of the tumour, or with an invented tumour painted onto healthy tissue, and as target
  the real scan.
- `PhantomPair`: a virtual patient on whom the growth solver ran (`hybridtumor.phantoms`): baseline and follow-up,
  treated or not.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save
from scipy import ndimage

from hybridtumor.baseline import VISIBLE_TAIL, Baseline, read_baseline
from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.models.conditioning import TherapyState
from hybridtumor.models.healthy_fill import fill_weight, healthy_fill
from hybridtumor.models.resolution import block_mean, working_factor
from hybridtumor.patient import Patient
from hybridtumor.scan import write_bytes

POCKETS = 6
"""Invented tumours per real case: places in healthy tissue for which a fill is prepared."""

POCKET_RADIUS = (8.0, 22.0)
"""mm. Smallest and largest radius of an invented tumour."""

Array = NDArray[np.float32]


class Stored:
    """Reading and writing of a frozen dataclass of arrays and numbers."""

    def save(self, path: Path) -> None:
        """Write all arrays as safetensors, images in half precision, everything else into its JSON metadata."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        arrays = {k: _compact(v) for k, v in values.items() if isinstance(v, np.ndarray)}
        rest = {k: asdict(v) if isinstance(v, TherapyState) else v for k, v in values.items() if k not in arrays}
        write_bytes(path, save(arrays, {"kind": type(self).__name__, "rest": json.dumps(rest)}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            The file is of another kind.
        """
        with safe_open(path, "numpy") as file:
            if file.metadata()["kind"] != cls.__name__:
                raise InputError(f"{path}: expected a {cls.__name__}, got {file.metadata()['kind']}. Clear the cache.")
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            rest = json.loads(file.metadata()["rest"])
        if "therapy" in rest:
            rest["therapy"] = TherapyState(**rest["therapy"])
        return cls(**arrays, **rest)


def _compact(values: NDArray[Any]) -> NDArray[Any]:
    """Return images (three axes and more) in half precision, everything else as it is."""
    return np.ascontiguousarray(values, np.float16 if values.ndim >= 3 else values.dtype)


@dataclass(frozen=True, eq=False)
class RealCase(Stored):
    """A real glioma on the working grid, cropped to the head.

    Parameters
    ----------
    scans, healthy
        (4, X, Y, Z) normalised scans and the mean of their healthy fill.
    fill
        (X, Y, Z) weight of the fill: 1 in the tumour and a little beyond.
    labels
        (3, X, Y, Z) soft labels.
    density
        n that shows as the segmentation.
    tissue
        (3, X, Y, Z) white, grey, CSF.
    pockets
        (k, 4) centre (working voxels) and radius (mm) of places for invented tumours.
    pocket_fill
        (4, X, Y, Z) mean of the healthy fill of all those places at once.
    contrast, population
        (3, 4) the patient's contrast, and the mean of the other cases.
    levels
        (4, 2) strength of texture in healthy tissue.
    """

    name: str
    scans: Array
    healthy: Array
    fill: Array
    labels: Array
    density: Array
    tissue: Array
    pockets: Array
    pocket_fill: Array
    contrast: Array
    population: Array
    levels: Array
    enhances: bool
    spacing: float


@dataclass(frozen=True, eq=False)
class PhantomPair(Stored):
    """Baseline and follow-up of a virtual patient on the working grid, cropped to the tumour.

    The baseline is where its tissue is on the day of the follow-up; `displacement` says how far that has moved, mm.
    """

    name: str
    baseline: Array
    healthy: Array
    texture: Array
    baseline_labels: Array
    target: Array
    target_labels: Array
    density_day0: Array
    density: Array
    density_untreated: Array
    log_kill: Array
    tissue: Array
    displacement: Array
    cavity: Array
    contrast: Array
    levels: Array
    enhances: bool
    spacing: float
    day: float
    therapy: TherapyState

    @property
    def number(self) -> int:
        """Number of its phantom, as in ``phantom_0007_treated_120``."""
        return int(self.name.split("_")[1])


def prepare_cases(
    folders: list[Path], cache: Path, load: Callable[[Path], Patient], *, progress: Callable[[str], None] | None = None
) -> list[RealCase]:
    """Return the real cases of BraTS folders, from the cache or freshly prepared.

    Parameters
    ----------
    folders
        Training cases only: a test case that was trained on is no test.
    cache
        Folder of the prepared files.
    load
        `hybridtumor.prepare.load_patient`.
    """
    cases = []
    for folder in folders:
        path = cache / f"real_{folder.name}.safetensors"
        if not path.is_file():
            baseline = read_baseline(load(folder))
            _real_case(folder.name, baseline).save(path)
        cases.append(RealCase.load(path))
        if progress is not None:
            progress(folder.name)
    return [_with_population(case, cases) for case in cases]


def population_contrast(cases: list[RealCase]) -> Array:
    """Return the mean contrast over cases, each label weighted by the cube root of its volume, (3, 4)."""
    weights = np.stack([np.cbrt(case.labels.sum(axis=(1, 2, 3), dtype=np.float64)) for case in cases])[..., None]
    values = np.stack([case.contrast for case in cases])
    return np.asarray((weights * values).sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-6), np.float32)


def _with_population(case: RealCase, cases: list[RealCase]) -> RealCase:
    """Return the case with the mean contrast of all others: it may not know its own."""
    others = [other for other in cases if other.name != case.name]
    values = {f.name: getattr(case, f.name) for f in fields(case)}
    return RealCase(**(values | {"population": population_contrast(others) if others else case.contrast}))


def _real_case(name: str, baseline: Baseline) -> RealCase:
    factor = working_factor(baseline.grid)
    head = baseline.head
    box = tuple(slice(s.start // factor * factor, s.stop) for s in ndimage.find_objects(head.view(np.uint8))[0])

    def coarse(values: NDArray[Any]) -> Array:
        return block_mean(values[..., box[0], box[1], box[2]], factor)

    tissue = baseline.tissue
    rng = np.random.default_rng(sum(name.encode()))
    pockets, taken = [], baseline.labels.mask()
    for centre, radius, ball in _places_for_tumours(rng, baseline):
        pockets.append([*[(c - s.start - (factor - 1) / 2) / factor for c, s in zip(centre, box, strict=True)], radius])
        taken = taken | ball
    return RealCase(
        name=name,
        scans=coarse(baseline.images),
        healthy=coarse(baseline.healthy),
        fill=coarse(fill_weight(baseline.labels.mask() | (baseline.density > VISIBLE_TAIL), tissue)),
        labels=coarse(baseline.soft_labels),
        density=coarse(baseline.density),
        tissue=coarse(np.stack([tissue.white, tissue.grey, tissue.csf])),
        pockets=np.array(pockets, np.float32),
        pocket_fill=coarse(healthy_fill(baseline.images, taken, tissue).mean),
        contrast=baseline.contrast,
        population=baseline.contrast,
        levels=baseline.levels,
        enhances=baseline.enhances,
        spacing=float(factor * baseline.grid.voxel_volume ** (1 / 3)),
    )


def _places_for_tumours(
    rng: np.random.Generator, baseline: Baseline
) -> Iterator[tuple[NDArray[np.int64], float, BoolArray]]:
    """Yield centre, radius and ball of invented tumours in healthy white and grey matter."""
    size = baseline.grid.voxel_size
    free = baseline.tissue.parenchyma & ~ndimage.binary_dilation(baseline.labels.mask(), iterations=12)
    candidates = np.argwhere(free)
    for _ in range(POCKETS):
        centre = candidates[rng.integers(len(candidates))]
        radius = float(rng.uniform(*POCKET_RADIUS))
        axes = np.ogrid[tuple(slice(0, n) for n in free.shape)]
        squared = sum(((a - c) * s) ** 2 for a, c, s in zip(axes, centre, size, strict=True))
        yield centre, radius, np.asarray(squared <= radius**2) & baseline.head & ~baseline.labels.mask()
