"""How files are measured on a device, and what may be concluded from the samples."""
