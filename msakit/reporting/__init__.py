"""From finished runs to what a reader sees: tables, figures, the manifest and the check that they still agree."""
