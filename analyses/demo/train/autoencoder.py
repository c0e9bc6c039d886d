"""A ReLU sparse autoencoder whose decoder directions have unit norm in the forward pass."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

ENCODER_SCALE = 0.1  # norm of initial encoder rows; decoder directions have norm 1


class Autoencoder(torch.nn.Module):
    """Autoencoder with `codes = relu(encoder x + b)` and `reconstruction = codes · unit decoder rows + b'`."""

    def __init__(self, center: Float[Tensor, " d_in"], n_latents: int, seed: int) -> None:
        """Draw unit decoder directions from `seed`.

        The encoder starts as their transpose, scaled down, and reads activations minus `center`. The reconstruction
        starts at `center`, which should be the mean activation: the mean holds half of the energy, and learning it
        would take longer than the training.
        """
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        directions = functional.normalize(torch.randn(n_latents, len(center), generator=generator), dim=1)
        self.W_dec = torch.nn.Parameter(directions.clone())  # [n_latents, d_in]
        self.W_enc = torch.nn.Parameter(ENCODER_SCALE * directions)  # [n_latents, d_in]
        self.b_enc = torch.nn.Parameter(-ENCODER_SCALE * directions @ center)
        self.b_dec = torch.nn.Parameter(center.clone())

    def forward(
        self, x: Float[Tensor, "*batch d_in"]
    ) -> tuple[Float[Tensor, "*batch d_in"], Float[Tensor, "*batch n_latents"]]:
        """Return reconstruction and codes."""
        codes = functional.linear(x, self.W_enc, self.b_enc).relu()
        return codes @ functional.normalize(self.W_dec, dim=1) + self.b_dec, codes
