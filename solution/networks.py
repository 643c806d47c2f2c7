"""The two convolutional networks: images to codes, and codes to images."""

import torch.nn as nn
from torch import Tensor


class Encoder(nn.Module):
    """Maps images (B, 1, 28, 28) in [0, 1] to (B, nz) real numbers."""

    def __init__(self, nz: int) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        # Sides: 28 -> 14 -> 7 -> 3 -> 1, by floor((n + 2 padding - kernel) / stride) + 1.
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=4, stride=2, padding=1),  # (B, 32, 14, 14)
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=1),  # (B, 64, 7, 7)
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, kernel_size=3, stride=2),  # (B, 128, 3, 3)
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.2),
            nn.Conv2d(128, 256, kernel_size=3),  # (B, 256, 1, 1)
            nn.BatchNorm2d(256),
            nn.LeakyReLU(0.2),
            nn.Flatten(),  # (B, 256)
            nn.Linear(256, nz),  # (B, nz): no activation, a code is any real vector
        )
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 28, 28) in [0, 1]; returns (B, nz)."""
        ### BEGIN SOLUTION
        code: Tensor = self.layers(x)
        return code
        ### END SOLUTION


class Decoder(nn.Module):
    """Maps latents (B, nz) to images (B, 1, 28, 28) in [0, 1]."""

    def __init__(self, nz: int) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        # Sides: 1 -> 3 -> 7 -> 14 -> 28, by (n - 1) stride - 2 padding + kernel.
        self.layers = nn.Sequential(
            nn.Linear(nz, 256),  # (B, 256)
            nn.Unflatten(1, (256, 1, 1)),  # (B, 256, 1, 1)
            nn.BatchNorm2d(256),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(256, 128, kernel_size=3),  # (B, 128, 3, 3)
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(128, 64, kernel_size=3, stride=2),  # (B, 64, 7, 7)
            nn.BatchNorm2d(64),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(64, 32, kernel_size=4, stride=2, padding=1),  # (B, 32, 14, 14)
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(32, 1, kernel_size=4, stride=2, padding=1),  # (B, 1, 28, 28)
            nn.Sigmoid(),  # pixels in [0, 1]
        )
        ### END SOLUTION

    def forward(self, z: Tensor) -> Tensor:
        """z: (B, nz); returns (B, 1, 28, 28) in [0, 1]."""
        ### BEGIN SOLUTION
        image: Tensor = self.layers(z)
        return image
        ### END SOLUTION
