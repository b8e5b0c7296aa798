"""Compact reference models: one binary per option, handed to OR-Tools and PuLP as they are."""
