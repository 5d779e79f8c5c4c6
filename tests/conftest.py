"""Properties are drawn from a fixed seed and never fail for being slow on a busy machine."""

from hypothesis import settings

settings.register_profile("course", deadline=None, derandomize=True)
settings.load_profile("course")
