"""How well policies sample parse trees at fixed parameters, measured against the truth."""
