"""The virtual patient ``mni152``: a glioma that our own solver grew in the embedded brain.

A small seed in the deep white matter of the right hemisphere grows until about `TARGET_VOLUME` of it is visible
(n above the threshold of oedema): day 0. It grew as `PAST` says, faster than the default parameters, whose wide front
(√(D/ρ) = 2.3 mm) had brought the centre of a 25 ml tumour to n = 0.84 only: no necrosis and no ring. The four baseline
modalities come from the signal equation (`models.mr_signal`), textured by the atlas; every run gives the same patient.
"""

import numpy as np
from mpi4py import MPI
from scipy import ndimage

from hybridtumor.atlas import Atlas, mni152
from hybridtumor.growth_simulation import GrowthSimulation
from hybridtumor.models import mr_signal
from hybridtumor.models.visibility import label_fractions, label_map
from hybridtumor.parameters import GrowthParameters, ImagingThresholds
from hybridtumor.patient import Patient, Visit
from hybridtumor.prepare import Progress
from hybridtumor.scan import LabelMap, Scan
from hybridtumor.tissue import TissueMap

ID = "mni152"

SEED = (28.0, -20.0, 28.0)
"""RAS mm in MNI space: white matter of the right corona radiata, 9 mm from the wall of the ventricle."""

SEED_RADIUS = 3.0
"""mm. Standard deviation of the Gaussian seed."""

SEED_PEAK = 0.7
"""Density at the centre of the seed."""

PAST = GrowthParameters(diffusion_white="0.10 mm^2/day", diffusion_grey="0.01 mm^2/day", proliferation="0.06 1/day")
"""How the tumour grew until day 0; inside the ranges of Lipková et al. 2019."""

CELL_SIZE = "2.5 mm"

TARGET_VOLUME = 25e3
"""mm³. Visible volume on day 0."""

AGES = tuple(range(100, 151, 5))
"""Days since the seed among which day 0 is chosen."""

NEGLIGIBLE = 1e-5
"""Density below which there is no tumour: the solver's tail never ends."""

NOISE = 4.0
"""Standard deviation of the Rician noise, scanner units: about 1.5 % of white matter on T1w."""

HETEROGENEITY = 0.10
"""Standard deviation of the smooth random texture inside the tumour."""


def virtual_patient(*, progress: Progress | None = None) -> Patient:
    """Return the virtual patient: four modalities, labels, tissue fractions and density on day 0.

    Raises
    ------
    ResourceError
        The template is not installed, or there is no compiler for the solver.
    """
    tell = progress or (lambda _: None)
    atlas = mni152()
    tell(0.1)
    density = _grown(atlas.tissue, lambda share: tell(0.1 + 0.7 * share))
    tell(0.8)
    scans = _scans(atlas, density.values)
    labels = LabelMap(label_map(density.values, ImagingThresholds()), atlas.t1.grid)
    tell(1.0)
    return Patient(ID, (Visit(0, scans, labels),), atlas.tissue, density, synthetic=True)


def seed(tissue: TissueMap) -> Scan:
    """Return the density from which the tumour grows."""
    world = tissue.grid.world(np.argwhere(tissue.parenchyma))
    distance2 = ((world - SEED) ** 2).sum(axis=1)
    values = np.zeros(tissue.grid.shape, np.float32)
    values[tissue.parenchyma] = np.where(
        distance2 < (4 * SEED_RADIUS) ** 2, SEED_PEAK * np.exp(-distance2 / (2 * SEED_RADIUS**2)), 0
    )
    return Scan(values, tissue.grid)


def _grown(tissue: TissueMap, progress: Progress) -> Scan:
    """Return the density on the day when the visible volume is nearest to `TARGET_VOLUME`."""
    simulation = GrowthSimulation.prepare(tissue, seed(tissue), PAST, AGES[-1], cell_size=CELL_SIZE, comm=MPI.COMM_SELF)
    forecast = simulation.run(days=AGES, progress=progress)
    threshold = ImagingThresholds().edema
    volumes = [np.count_nonzero(n > threshold) * tissue.grid.voxel_volume for n in forecast.density]
    density = forecast.density[int(np.abs(np.array(volumes) - TARGET_VOLUME).argmin())]
    return Scan(np.where(density > NEGLIGIBLE, density, 0), tissue.grid)


def _scans(atlas: Atlas, density: np.ndarray[tuple[int, int, int], np.dtype[np.float32]]) -> dict[str, Scan]:
    """Return the four modalities, with the texture of the atlas, heterogeneity inside the tumour and noise."""
    thresholds, generator = ImagingThresholds(), np.random.default_rng(0)
    visible = label_fractions(density, thresholds).sum(axis=0)
    mottle = ndimage.gaussian_filter(generator.standard_normal(density.shape, np.float32), 2.0)
    mottle *= HETEROGENEITY / mottle.std()
    texture = (1 - visible) * mr_signal.texture_of(atlas.t1.values, atlas.tissue) + visible * mottle
    scans = mr_signal.simulate_scans(atlas.tissue, texture, density, thresholds)
    return {name: Scan(mr_signal.add_noise(values, NOISE, generator), atlas.t1.grid) for name, values in scans.items()}
