"""Shared by all packages: devices, storage, progress, settings, JAX's set-up."""
