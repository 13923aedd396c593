"""The nouns that pass between the rooms: numpy only, no files but the manifest, no Paddle."""

from medseg_paddle.core.acquisition import Acquisition, Slicing, SpacingRange, VolumeAcquisition, Within
from medseg_paddle.core.class_weights import class_weights
from medseg_paddle.core.geometry import FARTHEST_MM, Box, Geometry, Plane, corners, straightened
from medseg_paddle.core.labels import Label, LabelSet
from medseg_paddle.core.lattice import crop, flip, match, pad, reorient
from medseg_paddle.core.manifest import MANIFEST_NAME, SPLITS, Case, Manifest, Split, fingerprint, sha256
from medseg_paddle.core.splitting import Place, Unit, Wanted
from medseg_paddle.core.volume import LabelMap, Units, Volume

__all__ = [
    "FARTHEST_MM",
    "MANIFEST_NAME",
    "SPLITS",
    "Acquisition",
    "Box",
    "Case",
    "Geometry",
    "Label",
    "LabelMap",
    "LabelSet",
    "Manifest",
    "Place",
    "Plane",
    "Slicing",
    "SpacingRange",
    "Split",
    "Unit",
    "Units",
    "Volume",
    "VolumeAcquisition",
    "Wanted",
    "Within",
    "class_weights",
    "corners",
    "crop",
    "fingerprint",
    "flip",
    "match",
    "pad",
    "reorient",
    "sha256",
    "straightened",
]
