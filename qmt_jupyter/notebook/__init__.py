"""The IPython extension: magics, streaming display, the invite card."""
