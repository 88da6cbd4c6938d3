"""`python -m lightning_hpo` is `lightning-hpo`."""

import sys

from lightning_hpo.cli import main

if __name__ == "__main__":
    sys.exit(main())
