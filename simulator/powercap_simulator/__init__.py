"""An emulated GPU cluster under LLM load: deterministic from a seed, seen through real exporters.

May import every other part; no part imports it. The CLI finds its commands through the entry-point
group ``powercap.commands``.
"""
