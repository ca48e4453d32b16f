"""Helpers of all packages: devices, storage, compilation, progress, checks of settings, set-up of JAX."""
