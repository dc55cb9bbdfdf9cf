"""Probes: small functions that look at one part of the installation and say what is wrong with it."""
