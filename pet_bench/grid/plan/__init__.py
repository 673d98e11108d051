"""Which trials there are, what they cost, and what has become of them; nothing here runs one."""
