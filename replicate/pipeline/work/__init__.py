"""Defines the units of work that compute stages run, and lists those that params.yaml defines."""
