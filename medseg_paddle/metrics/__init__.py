"""How good a segmentation is: numpy only, no files, no Paddle."""

from medseg_paddle.metrics.overlap import METRICS, CaseCounts, ClassScores
from medseg_paddle.metrics.report import MEAN, TABLE_HEADER, Report, Row, Statistics

__all__ = [
    "MEAN",
    "METRICS",
    "TABLE_HEADER",
    "CaseCounts",
    "ClassScores",
    "Report",
    "Row",
    "Statistics",
]
