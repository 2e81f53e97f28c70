"""Segmentation: frames in, labelled masks out."""
