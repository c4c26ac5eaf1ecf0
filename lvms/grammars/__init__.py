"""Grammars: models of sentences whose latents are labelled binary trees."""
