"""Makes the starter: a tiny SDXL, trained from nothing on emoji, that ships with Kiln."""

import os

# Before torch is imported: beside another busy process OpenMP's threads would spin, and all crawl.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
