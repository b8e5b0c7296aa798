"""Electricity price and carbon intensity: providers and the energy weight made of them."""
