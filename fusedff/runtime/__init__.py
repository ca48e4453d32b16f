"""Helpers of all packages: devices, storage, progress, checks of settings, set-up of JAX."""
