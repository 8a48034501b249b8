"""Commands that use what was trained: predictions, exports."""
