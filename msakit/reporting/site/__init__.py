"""The report page: one HTML file for each results folder, which opens from disk and asks nothing of any network.

`build` makes it; the other modules each turn one kind of thing into HTML. Templates, style and script lie beside them.
"""
