"""Grammars whose latent variable is the tree: their tables, exact inference and priors."""
