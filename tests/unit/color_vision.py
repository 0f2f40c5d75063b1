"""How colors look to the color-blind and in grey: Machado et al. 2009, and distances in CIELAB."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_rgb

# Machado, Oliveira & Fernandes 2009, severity 1.0, for linear RGB.
DEFICIENCIES = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(axis=1)


def linear(color: object) -> np.ndarray:
    """Give a color of matplotlib in linear RGB."""
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def seen(color: object, vision: str) -> np.ndarray:
    """Give a color in linear RGB as it looks with "normal" vision, a deficiency, or in "grey"."""
    rgb = linear(color)
    if vision == "grey":
        return np.full(3, luminance(color))
    return np.clip(np.array(DEFICIENCIES[vision]) @ rgb, 0, 1) if vision in DEFICIENCIES else rgb


def luminance(color: object) -> float:
    """Give the relative luminance of a color, 0 for black to 1 for white."""
    return float(TO_XYZ[1] @ linear(color))


def contrast(color: object, other: object = "white") -> float:
    """Give the contrast ratio of two colors, 1 to 21 (WCAG 2)."""
    low, high = sorted((luminance(color), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def lab(color: object, vision: str = "normal") -> np.ndarray:
    """Give a color in CIELAB as it looks with a vision: lightness 0 to 100, and two axes of hue."""
    ratio = TO_XYZ @ seen(color, vision) / WHITE
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(color: object, other: object, vision: str = "normal") -> float:
    """Give the distance of two colors in CIELAB; about 2 is just seen, 10 at a glance."""
    return float(np.linalg.norm(lab(color, vision) - lab(other, vision)))
