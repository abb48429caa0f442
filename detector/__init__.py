"""Vehicles in pictures: detection, per-camera tracking, a motion gate.

This room knows no camera, no clock, no broker and no database.
"""
