"""Labels of latents: the tokens they promote, explanations, and the user's own columns."""

from sae_geometry.io.labels import Labels
from sae_geometry.labels.label_file import read_labels
from sae_geometry.labels.tokens import TokenReading, read_tokens
from sae_geometry.labels.unembedding import Unembedding, read_unembedding
