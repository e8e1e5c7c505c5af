"""The commands of `fovea-model`: a file for each, which adds its arguments and does what they say."""
