"""Version of `bhx synth`, for GeneratedBy."""

from importlib import metadata


def version() -> str:
    """Version of the installed distribution."""
    return metadata.version("bhx")
