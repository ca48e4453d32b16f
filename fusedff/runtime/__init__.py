"""What all rooms share: devices, storage, progress, settings, JAX's set-up."""
