"""Segmentation with trained models in dcnum's format (``.dcnm``).

Only workers import torch; modules here import it inside of functions.
"""
