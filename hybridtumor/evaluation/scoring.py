"""Scores of one case: every figure of every answer, with the region it was taken in.

Images enter in units of the healthy range (2nd to 98th percentile); PSNR and SSIM take a data range of `DATA_RANGE`,
and figures are means over the modalities at hand. Whole-brain figures count the voxels beyond the box, where every
answer equals the target.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridtumor.evaluation import ensemble as spread
from hybridtumor.evaluation.cases import EvaluationCase, Region, hard_labels
from hybridtumor.evaluation.predictions import Ensemble, Prediction, Rows
from hybridtumor.evaluation.response import DensityEstimator, density_agreement, volume_error
from hybridtumor.evaluation.similarity import Scale, mae, ms_ssim_of, scales_of, similarity_scales, ssim_of
from hybridtumor.evaluation.texture import haar_distance, sliced_wasserstein, spectrum_distance
from hybridtumor.grid import BoolArray
from hybridtumor.metrics import dice, hd95, psnr
from hybridtumor.models.visibility import label_map
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.scan import LABEL_CONVENTIONS, LABELS

DATA_RANGE = 3.0
"""Normalised intensity: from CSF on T1w to the brightest enhancement."""

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Score:
    """One figure of one answer to one case; NaN or infinity where it is not defined."""

    kind: str
    patient: str
    case: str
    method: str
    region: str
    figure: str
    value: float


@dataclass(frozen=True)
class Scorer:
    """Makes the scores of one case.

    Parameters
    ----------
    case
        The case.
    thresholds
        Densities at which the tumour shows.
    estimator
        Reads the density off images, or None: left out.
    """

    case: EvaluationCase
    thresholds: ImagingThresholds
    estimator: DensityEstimator | None = None

    def scores(self, answers: Iterable[Prediction], ensembles: Iterable[Ensemble]) -> list[Score]:
        """Return every score of all answers to the case and of all ensembles, of which one is looked at at a time."""
        found = [score for answer in answers for score in self.of(answer)]
        rows = []
        for drawn in ensembles:
            found += [*self.of(drawn.sample), *self.of(drawn.mean), *self.of_ensemble(drawn)]
            rows.append(drawn.rows)
        return found + [score for own in rows for score in self._against_render(found, own)]

    def of(self, answer: Prediction) -> Iterator[Score]:
        """Yield the scores of one answer."""
        case, regions = self.case, self.case.regions()
        present = case.present
        images, target = answer.images[present], case.target_images[present]
        local = [name for name in regions if name != "brain"]
        count = max(scales_of(regions[name].mask) for name in local)
        maps = [similarity_scales(a, b, DATA_RANGE, count) for a, b in zip(images, target, strict=True)]
        for name, region in regions.items():
            figures = _voxelwise(images, target, region, maps)
            if name in local:
                figures |= _textural(images, target, region.mask, maps)
            yield from self._named(answer.method, name, figures)
        yield from self._of_labels(answer)
        if self.estimator is not None:
            mask = regions["mask"].mask
            found = density_agreement(self.estimator(answer.images), case.fields.density, mask)
            yield from self._named(
                answer.method, "mask", dict(zip(("density correlation", "density error"), found, strict=True))
            )
        if answer.seconds:
            yield from self._named(answer.method, "cost", {"seconds": answer.seconds})

    def of_ensemble(self, drawn: Ensemble) -> Iterator[Score]:
        """Yield the scores of an ensemble as a forecast."""
        members, case, pairs = drawn.images[:, self.case.present], self.case, drawn.antithetic
        method = drawn.rows.ensemble
        target = case.target_images[case.present]
        for name, region in case.regions().items():
            x, y = members[..., region.mask], target[:, region.mask]
            yield from self._named(
                method, name, {"crps": float(spread.crps(x, y, antithetic=pairs).mean()) * region.share}
            )
            if name == "brain":
                continue
            figures = {"spread/skill": spread.spread_skill(x, y, antithetic=pairs)}
            for level in (0.5, 0.9):
                covered = spread.coverage(x, y, level, antithetic=pairs)
                figures[f"coverage {level:.0%}"] = covered.observed
                figures[f"nominal coverage {level:.0%}"] = covered.nominal
            ranks = spread.rank_histogram(x, y, antithetic=pairs)
            figures["rank unevenness"] = spread.unevenness(ranks)
            figures |= {f"rank {index}": float(share) for index, share in enumerate(ranks)}
            yield from self._named(method, name, figures)
        outside = case.scene.drawn.support == 0
        moved = np.abs(drawn.images - case.scene.drawn.images)[..., outside].max(initial=0)
        yield from self._named(method, "outside", {"change outside the mask": float(moved)})

    def _of_labels(self, answer: Prediction) -> Iterator[Score]:
        case = self.case
        seen, wanted = hard_labels(answer.labels), hard_labels(case.target_labels)
        meant = hard_labels(_one_hot(label_map(case.fields.density, self.thresholds, enhances=case.baseline.enhances)))
        for name in seen:
            yield from self._named(
                answer.method,
                name,
                {
                    "dice": dice(seen[name], wanted[name]),
                    "hd95": hd95(seen[name], wanted[name], case.voxel_size),
                    "volume error": volume_error(seen[name], wanted[name]),
                    "dice to fields": dice(seen[name], meant[name]),
                },
            )

    def _against_render(self, found: list[Score], rows: Rows) -> Iterator[Score]:
        """Yield the ratios of a refiner to the renders, and of its forecast to the better of the two."""
        value = {(s.method, s.region, s.figure): s.value for s in found}
        for name in ("mask", "tumour"):
            error = min(value.get((m, name, "mae"), 0.0) for m in ("render", "smooth render"))
            if error > 0 and (rows.ensemble, name, "crps") in value:
                ratio = value[rows.ensemble, name, "crps"] / error
                yield from self._named(rows.ensemble, name, {"crps over render's mae": ratio})
            for render in ("render", "smooth render"):
                smooth = value.get((render, name, "spectrum"), 0.0)
                if smooth > 0:
                    ratio = value[rows.sample, name, "spectrum"] / smooth
                    yield from self._named(rows.sample, name, {f"spectrum over {render}'s": ratio})

    def _named(self, method: str, region: str, figures: dict[str, float]) -> Iterator[Score]:
        case = self.case
        for figure, value in figures.items():
            yield Score(case.kind, case.patient, case.name, method, region, figure, float(value))


def _voxelwise(images: Array, target: Array, region: Region, maps: list[list[Scale]]) -> dict[str, float]:
    pairs = zip(images, target, strict=True)
    ratios = [psnr(a, b, region.mask, data_range=DATA_RANGE) for a, b in pairs]
    similar = float(np.mean([ssim_of(scales, region.mask) for scales in maps]))
    return {
        "psnr": float(np.mean(ratios)) - float(10 * np.log10(region.share)),
        "ssim": region.share * similar + 1 - region.share,
        "mae": region.share * mae(images, target, region.mask),
    }


def _textural(images: Array, target: Array, mask: BoolArray, maps: list[list[Scale]]) -> dict[str, float]:
    energy, kurtosis = haar_distance(images, target, mask)
    return {
        "ms-ssim": float(np.mean([ms_ssim_of(scales, mask) for scales in maps])),
        "spectrum": spectrum_distance(images, target, mask),
        "haar energy": energy,
        "haar kurtosis": kurtosis,
        "patches": sliced_wasserstein(images, target, mask),
    }


def _one_hot(labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    codes = LABEL_CONVENTIONS["brats2021"]
    return np.stack([labels == codes[name] for name in LABELS]).astype(np.float32)
