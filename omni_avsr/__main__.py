"""`python -m omni_avsr`, also under torchrun."""

from __future__ import annotations

from omni_avsr.cli import main

if __name__ == "__main__":
    main()
