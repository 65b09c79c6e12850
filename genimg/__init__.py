"""genimg: image generators and image restorers in plain PyTorch; no Ray, no HTTP, no storage."""

__version__ = "0.1.0"
