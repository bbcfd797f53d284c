"""A guest in a notebook server of a JupyterHub: it asks the Hub's services for seats."""
