"""Tables (`table`) and figures (`plot`): reads results, never runs anything."""
