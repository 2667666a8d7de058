"""The embedded brain: the MNI152 average (ICBM 2009a, symmetric) at 1 mm that nilearn carries in its package.

Tissue fractions are the published probabilities of grey and white matter; what is left inside the brain is CSF. Nothing
is downloaded: the three files lie inside the installed nilearn.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hybridtumor.errors import ResourceError
from hybridtumor.scan import Scan
from hybridtumor.tissue import TissueMap

_FILES = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True, eq=False)
class Atlas:
    """An average brain: its T1-weighted image and its tissue fractions, on one grid."""

    t1: Scan
    tissue: TissueMap


def mni152() -> Atlas:
    """Read the MNI152 brain: 197 × 233 × 189 voxels of 1 mm, RAS.

    Raises
    ------
    ResourceError
        nilearn, or its copy of the template, is missing.
    """
    spec = find_spec("nilearn")
    folder = Path(spec.origin).parent / "datasets" / "data" if spec and spec.origin else None
    if folder is None or not (folder / _FILES.format("t1")).is_file():
        raise ResourceError("atlas: expected nilearn with its MNI152 template, found none. Install nilearn >= 0.12.")
    t1, grey, white = (Scan.load(folder / _FILES.format(name)) for name in ("t1", "gm", "wm"))
    head = t1.values > 0
    fractions = np.stack([white.values, grey.values]) * head
    fractions /= max(1.0, float(fractions.max()))  # stored as 0 to 255
    fractions /= np.maximum(fractions.sum(axis=0), 1)
    w, g = fractions.astype(np.float32)
    return Atlas(t1, TissueMap(w, g, np.where(head, 1 - w - g, 0).astype(np.float32), t1.grid))
