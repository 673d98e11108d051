"""Tables (`table`, `styles` in `formats`) and figures (`figures`, `curves`, …): reads results, never runs anything."""
