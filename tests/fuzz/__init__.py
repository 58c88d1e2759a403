"""Damaged containers: whatever is fed to the program, it answers."""
