"""What latents mean: tokens that they write towards, explanations, and labels of the user."""
