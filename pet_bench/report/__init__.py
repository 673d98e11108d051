"""Tables (`table`, `styles` in `formats`) and figures (`plot`, `figures`): reads results, never runs anything."""
