"""Which trials a grid holds (`spec`), which of them are missing, and running those (`run`)."""
