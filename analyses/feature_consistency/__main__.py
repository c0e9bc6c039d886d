"""`python -m analyses.feature_consistency`."""

import sys

from analyses.feature_consistency.reproduce import main

sys.exit(main())
