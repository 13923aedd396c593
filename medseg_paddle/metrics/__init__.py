"""How good a segmentation is: numpy and scipy only, no files, no Paddle."""

from medseg_paddle.metrics.overlap import METRICS, CaseCounts, ClassScores
from medseg_paddle.metrics.report import MEAN, TABLE_HEADER, Report, Row, Statistics
from medseg_paddle.metrics.surface_cases import SURFACE_METRICS, Distances, Surfaces

__all__ = [
    "MEAN",
    "METRICS",
    "SURFACE_METRICS",
    "TABLE_HEADER",
    "CaseCounts",
    "ClassScores",
    "Distances",
    "Report",
    "Row",
    "Statistics",
    "Surfaces",
]
