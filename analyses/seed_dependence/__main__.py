"""`python -m analyses.seed_dependence`."""

import sys

from analyses.seed_dependence.reproduce import main

sys.exit(main())
