"""One GPU for a whole JupyterHub: a service of the Hub that is a host of the mesh.

In ``jupyterhub_config.py``:

>>> from qmt_jupyter.hub import configure
>>> configure(c, model="smollm2")

``python -m qmt_jupyter.hub`` is the service.
"""

from __future__ import annotations
