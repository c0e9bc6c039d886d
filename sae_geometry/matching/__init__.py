"""One-to-one matchings of two dictionaries: mutual, greedy, optimal. Tensors in, numpy out. See README.md here."""

from sae_geometry.matching.assignment import Assignment, Certificate, OneToOne, Progress, Step
from sae_geometry.matching.match import match
from sae_geometry.matching.verify import verify

__all__ = ["Assignment", "Certificate", "OneToOne", "Progress", "Step", "match", "verify"]
