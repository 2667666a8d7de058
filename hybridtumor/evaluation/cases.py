"""Evaluation cases: a problem whose answer is known, in the box in which the image may change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hybridtumor.baseline import Baseline
from hybridtumor.errors import InputError
from hybridtumor.grid import BoolArray
from hybridtumor.models.conditioning import Condition
from hybridtumor.models.render import Rendering
from hybridtumor.models.resolution import Box
from hybridtumor.parameters import ImagingThresholds
from hybridtumor.refiner_scene import DayFields, Scene, changed_box, draw
from hybridtumor.scan import LABELS

Array = NDArray[np.float32]
Kind = Literal["real", "phantom"]

INSIDE = 0.5
"""M and soft labels above this count as inside."""


@dataclass(frozen=True, eq=False)
class Region:
    """Where figures are taken.

    Parameters
    ----------
    mask
        (x, y, z) in the case's box.
    outside
        Voxels beyond the box that belong to it; every answer equals the target there.
    """

    mask: BoolArray
    outside: int = 0

    @property
    def share(self) -> float:
        """Share of its voxels that lie in the box."""
        inside = np.count_nonzero(self.mask)
        return inside / (inside + self.outside)


@dataclass(frozen=True, eq=False)
class EvaluationCase:
    """One problem with its answer; arrays on the patient's grid, in the scene's box, normalised intensity.

    Parameters
    ----------
    name, patient
        Of the case, and of the patient it belongs to: intervals are over patients.
    kind
        Whether a scanner made the target or a program.
    scene
        What the networks are told.
    persistence
        (4, x, y, z) baseline scan as it was; None where tissue has moved and that scan is not kept.
    warped
        (4, x, y, z) baseline carried along with the tissue; equals persistence where nothing moves. Its labels are the
        scene's.
    textured
        The render on the textured fill: the best picture without networks.
    oracle
        (4, x, y, z) the render with the contrast measured on the target, which no forecast knows; or None.
    target_images, target_labels
        (4, x, y, z) and (3, x, y, z): the answer.
    fields
        Densities of the day, in the box.
    healthy
        (4, x, y, z) smooth healthy fill.
    head
        (x, y, z).
    outside
        Voxels of the head beyond the box; see `Region`.
    baseline
        The patient whose scans show the tumour, uncut: dose series start from him.
    """

    name: str
    patient: str
    kind: Kind
    scene: Scene
    persistence: Array | None
    warped: Array
    textured: Rendering
    oracle: Array | None
    target_images: Array
    target_labels: Array
    fields: DayFields
    healthy: Array
    head: BoolArray
    outside: int
    baseline: Baseline

    @property
    def voxel_size(self) -> NDArray[np.float64]:
        """Edges of a voxel, mm."""
        return self.baseline.grid.voxel_size

    @property
    def present(self) -> list[int]:
        """Numbers of the modalities at hand: figures are means over these."""
        return [index for index, there in enumerate(self.scene.condition.available) if there]

    def regions(self) -> Mapping[str, Region]:
        """Return mask, tumour and brain; the tumour is that of the target, and is missing where it has none.

        A resection cavity is in none of them: a rule paints it (`hybridtumor.cavity`), not the networks.
        """
        seen = self.head if self.fields.cavity is None else self.head & (self.fields.cavity == 0)
        tumour = (self.target_labels.sum(axis=0) > INSIDE) & seen
        found = {"mask": Region((self.scene.drawn.support > INSIDE) & seen)}
        if tumour.any():
            found["tumour"] = Region(tumour)
        return found | {"brain": Region(seen, self.outside)}


def pose(
    name: str,
    patient: str,
    kind: Kind,
    before: Baseline,
    fields: DayFields,
    condition: Condition,
    thresholds: ImagingThresholds,
    shown: Baseline,
) -> EvaluationCase:
    """Return a case from what is known before its day; its target is still the baseline.

    Parameters
    ----------
    before
        Baseline of the problem.
    shown
        See `EvaluationCase.baseline`.

    Raises
    ------
    InputError
        Nothing changes visibly.
    """
    box = changed_box(fields.density_day0, fields.density, before)
    if box is None:
        raise InputError(f"case {name}: expected a tumour that changes visibly, it does not.")
    scene = Scene.cut(before, fields, box, condition, thresholds)
    if not (scene.drawn.support > INSIDE).any():
        raise InputError(f"case {name}: expected a place in which the image may change, there is none.")
    fine = box.scaled(scene.factor)
    return EvaluationCase(
        name=name,
        patient=patient,
        kind=kind,
        scene=scene,
        persistence=scene.baseline,
        warped=scene.baseline,
        textured=draw(before, fields, box, condition, thresholds, textured=True),
        oracle=None,
        target_images=scene.baseline,
        target_labels=scene.labels,
        fields=_cut(fields, fine),
        healthy=fine.take(before.healthy),
        head=fine.take(before.head),
        outside=0,
        baseline=shown,
    )


def _cut(fields: DayFields, fine: Box) -> DayFields:
    """Return the fields in a box of the patient's grid."""
    return DayFields(
        fine.take(fields.density_day0),
        fine.take(fields.density),
        fine.take(fields.density_untreated),
        fine.take(fields.log_kill),
        None if fields.cavity is None else fine.take(fields.cavity),
        None if fields.displacement is None else fine.take(fields.displacement),
    )


def hard_labels(soft: NDArray[np.floating]) -> dict[str, BoolArray]:
    """Return the regions that clinics measure from soft labels (3, x, y, z): whole tumour, core and enhancing."""
    visible, chosen = soft.sum(axis=0) > INSIDE, soft.argmax(axis=0)
    edema, enhancing = LABELS.index("edema"), LABELS.index("enhancing")
    return {"whole": visible, "core": visible & (chosen != edema), "enhancing": visible & (chosen == enhancing)}
