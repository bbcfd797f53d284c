"""Ask hosts: the link to one, and the choice between several."""
