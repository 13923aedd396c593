"""Synthetic chest-CT patients with lung tumours: what the demonstration and the tests run on.

:func:`make_patient` computes a volume in Hounsfield units and its label map; :func:`write_phantom`
writes a cohort as DICOM series with a mask per slice. The same seed gives the same bytes. No patient's
data is in it: the anatomy is drawn from ellipsoids, tubes and noise (``anatomy``, ``lungs``, ``tumours``).
"""

from medseg_paddle.phantom.cohort import write_phantom
from medseg_paddle.phantom.patient import PHANTOM_LABELS, make_patient

__all__ = ["PHANTOM_LABELS", "make_patient", "write_phantom"]
