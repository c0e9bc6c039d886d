"""`python -m analyses.e2e_paper`."""

import sys

from analyses.e2e_paper.reproduce import main

sys.exit(main())
