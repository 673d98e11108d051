"""The PET methods: one file per family. Imported as `pet_bench.methods`."""
