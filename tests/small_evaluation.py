"""A small patient with a tumour and tiny networks with random weights: everything of an evaluation but its worth."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from hybridtumor.baseline import Baseline, read_baseline
from hybridtumor.grid import Grid
from hybridtumor.models.contrast import POPULATION
from hybridtumor.models.denoiser import NetworkSizes
from hybridtumor.models.visibility import label_map
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.patient import Patient, Visit
from hybridtumor.refine import Refiner
from hybridtumor.refiner_weights import RefinerWeights
from hybridtumor.scan import MODALITIES, LabelMap, Scan
from hybridtumor.solvers.training import new_networks
from hybridtumor.tissue import TissueMap

SHAPE = (60, 62, 58)
GRID = Grid(SHAPE, np.diag([-1.0, -1.0, 1.0, 1.0]))
TINY = NetworkSizes((8, 8, 8), (8, 8, 8))


def ball(peak: float, radius: float) -> NDArray[np.float32]:
    axes = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    distance = np.sqrt(sum((a - n / 2) ** 2.0 for a, n in zip(axes, SHAPE, strict=True)))
    return (peak / (1 + np.exp(distance - radius)) * (distance < radius + 6)).astype(np.float32)


@cache
def small_patient() -> Patient:
    rng = np.random.default_rng(0)
    white = np.zeros(SHAPE, np.float32)
    white[3:-3, 3:-3, 3:-3] = 1
    grey, csf = np.zeros_like(white), np.zeros_like(white)
    grey[:, 46:] = white[:, 46:]
    csf[:, :8] = white[:, :8]
    white[(grey + csf) > 0] = 0
    density = ball(0.97, 9)
    scans = {}
    for index, name in enumerate(MODALITIES):
        texture = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 0.7)
        values = 100 * white + (80 - 20 * index) * grey + 40 * csf + 40 * (density > 0.2) + 15 * texture * (white > 0)
        scans[name] = Scan(values.astype(np.float32), GRID)
    labels = LabelMap(label_map(density, ImagingThresholds()), GRID)
    return Patient("p", (Visit(0, scans, labels),), TissueMap(white, grey, csf, GRID), Scan(density, GRID))


@cache
def small_baseline() -> Baseline:
    return read_baseline(small_patient(), population=POPULATION)


@cache
def small_refiner() -> Refiner:
    """Networks that have learnt nothing: the regression adds little, the diffusion draws about its own spectrum."""
    networks = new_networks(TINY.mean, TINY.denoiser, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in (p for network in networks for p in network.parameters()):
            p.add_(0.01 * torch.randn(p.shape, generator=generator))
    return Refiner(RefinerWeights(networks[0].eval(), networks[1].eval(), POPULATION, {}), steps=2)
