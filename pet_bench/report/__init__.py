"""What results say: `tables`, `figures`, the `page`, the `statistics` behind them. Reads results, runs nothing.

Beneath these rooms: `summary` (a row per method), `costs`, `bounds`, `marks` (how methods are drawn), `published`.
"""
