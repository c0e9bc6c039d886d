"""What latents mean: tokens that they write towards, explanations, and labels of the user."""

from sae_geometry.io.labels import Labels
from sae_geometry.labels.label_file import read_labels
from sae_geometry.labels.model import read_unembedding
from sae_geometry.labels.tokens import TokenReading, read_tokens
from sae_geometry.labels.unembedding import Unembedding
