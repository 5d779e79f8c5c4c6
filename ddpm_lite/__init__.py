"""ddpm_lite: autoregressive and diffusion image models from nothing, on the same pixels."""

__version__ = "0.1.0"
