"""msakit: a reproducibility kit for multimodal sentiment analysis.

The package is a row of rooms, each importing only from those before it:

    data -> encoders -> features -> models -> training -> runs -> evaluation -> reporting -> papers/<paper>

Nothing heavy is imported here; import the module you need, for example ``from msakit.data import open_corpus``.
"""

__version__ = "0.1.0"
