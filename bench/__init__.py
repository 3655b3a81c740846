"""Measurements, as ratios to a bare tool in the same run: absolute figures of a shared machine mean little."""
