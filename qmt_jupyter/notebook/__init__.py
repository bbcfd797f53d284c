"""The IPython extension: magics, streaming display, the panels."""
