"""Files in and out: pictures, stacks, objects, DICOM, volumes. Everything read strictly, everything written whole."""
