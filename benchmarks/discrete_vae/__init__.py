"""The paper's third experiment: discrete VAEs of images, learned by every method."""
