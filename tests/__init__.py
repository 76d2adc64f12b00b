"""The tests of gatewise."""
