r"""Training of the density net S_B, which measures images: ``hybridtumor train --density``.

It learns from what the refiner learns from (`hybridtumor.teacher`), on blocks of 2 mm: real cases, where the
segmentation implies the density n, and phantoms, where the growth solver gives it. Cases that are held out judge it on
Ω, the tumour that shows and `AROUND` mm around it:

    correlation = corr(S_B, n)      burden = ∫S_B / ∫n      filled = ∫S_B(healthy fill) / ∫n

The first two should be 1, the third 0.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as nnf

from hybridtumor.baseline import VISIBLE_TAIL
from hybridtumor.density_weights import save_density_net
from hybridtumor.grid import Grid
from hybridtumor.models.density_estimator import BLOCK, DensityNet
from hybridtumor.models.density_examples import DensityCase, ExampleSource
from hybridtumor.models.density_training import DensityRecipe, train_density_net
from hybridtumor.models.distance import distance_near
from hybridtumor.models.healthy_fill import healthy_fill
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import MODALITIES
from hybridtumor.teacher import PhantomPair, RealCase
from hybridtumor.tissue import TissueMap
from hybridtumor.train_data import Say, prepare_lessons

AROUND = 8.0
"""mm around the tumour that belong to the region where held-out cases are judged."""

LOG_EVERY = 100

Array = NDArray[np.float32]


@dataclass(frozen=True)
class DensityOptions:
    """Options of ``train --density``.

    Parameters
    ----------
    cache
        Folder of prepared cases and phantoms, the same as the refiner's.
    out
        Folder of ``density.safetensors`` and its header.
    data
        Folder with ``train/patients``; HYBRIDTUMOR_DATA by default.
    recipe
        How.
    phantoms
        Phantoms to make where the cache has fewer.
    seed
        Of weights and examples.
    hold_out
        Names of cases to judge on instead of training on them.
    threads
        0 leaves torch's choice.
    """

    cache: Path
    out: Path
    data: Path | None = None
    recipe: DensityRecipe = field(default_factory=DensityRecipe)
    phantoms: int = 24
    seed: int = 0
    hold_out: tuple[str, ...] = ()
    threads: int = 0


@dataclass(frozen=True)
class Reading:
    """What the net reads from one case; see the module's equations."""

    correlation: float
    burden: float
    filled: float


def train_density(options: DensityOptions, *, say: Say | None = None) -> Path:
    """Train the net, judge it on the cases that are held out, write it, and return the path of the weights.

    Raises
    ------
    InputError
        There is nothing to train on, or the names to hold out are not among the cases.
    ConvergenceError
        The loss is not finite.
    """
    tell = say or (lambda _text: None)
    if options.threads:
        torch.set_num_threads(options.threads)
    cases, held, phantoms = _cases(options, tell)
    recipe = options.recipe

    def note(step: int, loss: float) -> None:
        if step % LOG_EVERY == 0 or step == recipe.steps:
            tell(f"density step {step} of {recipe.steps}: loss {loss:.4f}")

    source = ExampleSource(list(cases.values()), phantoms, recipe.phantom_share, seed=options.seed, batch=recipe.batch)
    net = train_density_net(source.batch_of, recipe, options.seed, progress=note)
    readings = {name: read(net, case) for name, case in held.items()}
    for name, found in readings.items():
        tell(
            f"held out {name}: correlation {found.correlation:.3f}, burden {found.burden:.2f} of the true one,"
            f" {found.filled:.2f} on the filled scan"
        )
    about = {
        "cases": list(cases),
        "phantom_pairs": len(phantoms),
        "recipe": asdict(recipe),
        "seed": options.seed,
        "held_out": {name: asdict(found) for name, found in readings.items()},
    }
    path = options.out / "density.safetensors"
    save_density_net(path, net, about)
    return path


def _cases(
    options: DensityOptions, tell: Say
) -> tuple[dict[str, DensityCase], dict[str, DensityCase], list[DensityCase]]:
    """Return real cases by name, those held out, and phantoms; what they were made from is let go."""
    lessons = prepare_lessons(options.data, options.cache, options.phantoms, options.hold_out, say=tell)
    cases, held = ({case.name: real_density_case(case) for case in some} for some in (lessons.cases, lessons.held))
    phantoms = [phantom_density_case(pair) for pair in lessons.phantoms]
    tell(f"{len(cases)} real cases, {len(held)} held out, {len(phantoms)} phantom pairs")
    return cases, held, phantoms


def real_density_case(case: RealCase) -> DensityCase:
    """Return a real case on blocks of 2 mm, with a textured healthy fill."""
    scans, labels, density, tissue = (
        values.astype(np.float32) for values in (case.scans, case.labels, case.density, case.tissue)
    )
    white, grey, csf = tissue
    brain = TissueMap(white, grey, csf, Grid(density.shape, np.diag([case.spacing] * 3 + [1.0])))
    fill = healthy_fill(scans, (labels.max(axis=0) > 0.5) | (density > VISIBLE_TAIL), brain)
    return DensityCase.pooled(
        scans, fill.mean, fill.textured, density, case.contrast, brain.head, enhances=case.enhances
    )


def phantom_density_case(pair: PhantomPair) -> DensityCase:
    """Return the follow-up of a phantom on blocks of 2 mm; its density is the growth solver's."""
    target, mean, texture, density, tissue = (
        values.astype(np.float32) for values in (pair.target, pair.healthy, pair.texture, pair.density, pair.tissue)
    )
    head = tissue.sum(axis=0) > 0.5
    return DensityCase.pooled(target, mean, mean + texture, density, pair.contrast, head, enhances=pair.enhances)


@torch.no_grad()
def estimate_of(net: DensityNet, images: Array, means: Array) -> Array:
    """Return what the net reads from images (4, X, Y, Z) on blocks, every modality present, (X, Y, Z)."""
    pad = [p for n in reversed(images.shape[1:]) for p in (0, -n % 4)]
    seen, fill = (nnf.pad(torch.from_numpy(np.array(a))[None], pad, mode="replicate") for a in (images, means))
    x, y, z = images.shape[1:]
    return net.on_blocks(seen, fill, torch.ones(1, len(MODALITIES)))[0, 0, :x, :y, :z].numpy()


def read(net: DensityNet, case: DensityCase, thresholds: ImagingThresholds | None = None) -> Reading:
    """Return how well the net reads a case that it has not seen."""
    tumour = case.density > (thresholds or ImagingThresholds()).edema
    place = case.head & (distance_near(tumour, np.full(3, float(BLOCK)), AROUND) <= AROUND)
    true, found, nothing = (
        values[place].astype(np.float64)
        for values in (
            case.density,
            estimate_of(net, case.images, case.means),
            estimate_of(net, case.healthy, case.means),
        )
    )
    burden = float(true.sum())
    return Reading(float(np.corrcoef(found, true)[0, 1]), float(found.sum()) / burden, float(nothing.sum()) / burden)
