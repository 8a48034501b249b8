"""Visual reprogramming with sample-specific masks (Cai et al., ICML 2024).

Data flows one way: dataset -> method (input transform) -> backbone (frozen) -> mapping -> module.
The four concept packages do not import each other; ``module`` composes their objects.
"""

__version__ = "0.1.0"
