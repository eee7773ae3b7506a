"""What kinds of machines can do: one YAML file each in profiles/, every figure with its source."""

from robustbert.hardware.profile import HardwareProfile, load_profile, profile_names

__all__ = ["HardwareProfile", "load_profile", "profile_names"]
