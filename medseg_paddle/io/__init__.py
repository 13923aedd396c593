"""Files in and out: pictures, DICOM series, NIfTI. Everything read strictly, everything written whole."""
