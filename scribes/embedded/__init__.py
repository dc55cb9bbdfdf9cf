"""Servers, secrets and sample texts for one checkout, so that Scribes runs without any set-up."""
