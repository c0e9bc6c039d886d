"""Where dictionaries come from: addresses, the table of layouts, and the only code that touches the network.

`load(address)` is the front door. Importing this package imports neither wandb nor huggingface_hub.
"""

from sae_geometry.sources.coerce import as_dictionary
from sae_geometry.sources.demo import Demo, demos
from sae_geometry.sources.errors import AddressError, LayoutError, SourceError
from sae_geometry.sources.inspection import Inspection, inspect
from sae_geometry.sources.loading import OrientationWarning, load

__all__ = [
    "AddressError",
    "Demo",
    "Inspection",
    "LayoutError",
    "OrientationWarning",
    "SourceError",
    "as_dictionary",
    "demos",
    "inspect",
    "load",
]
