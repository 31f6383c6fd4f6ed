"""Recovery without training: bias correction, equalization and AdaRound."""
