"""The files of deploy/, as real programs read them."""
